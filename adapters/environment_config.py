"""One environment as its files say it: ``environment.toml`` and the trust policy that it names, read once at start."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from constitution.environment import Environment
from constitution.errors import ConstitutionError, InvalidRequestError, Issue
from constitution.trust.trust_policy import TrustPolicy
from signatures.regular_file import read_regular_text
from signatures.trust_files import MAX_FILE, load_trust

HINT = "set ENVIRONMENT_FILE to the environment.toml of this environment"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentConfig:
    """What a process knows of its environment.

    Args:
        environment: parsed ``environment.toml``.
        trust: parsed trust policy of the same environment.
        directory: the folder of ``environment.toml``.
    """

    environment: Environment
    trust: TrustPolicy
    directory: Path

    @property
    def name(self) -> str:
        """The environment's name."""
        return self.environment.environment


def load_environment_config(
    environment_file: Path, check: Callable[[Environment, Path], Iterable[Issue]] | None = None
) -> EnvironmentConfig:
    """Read ``environment.toml`` and its trust policy.

    Args:
        environment_file: the file.
        check: finds what else its reader cannot use, by the environment and its folder.

    Raises:
        InvalidRequestError: with every problem: a file that cannot be read or is not valid, a trust policy of another
            environment, what ``check`` found.
    """
    environment = Environment.parse(read_regular_text(environment_file, MAX_FILE, hint=HINT))
    directory = environment_file.resolve().parent
    issues: list[Issue] = []
    trust: TrustPolicy | None = None
    try:
        trust = load_trust(directory / environment.trust)
    except ConstitutionError as error:
        issues += error.issues or [Issue(code=error.code, path="/trust", message=error.message, hint=error.hint)]
    if trust is not None and trust.environment != environment.environment:
        message = f"the trust policy is for {trust.environment!r}, this environment is {environment.environment!r}"
        issues.append(Issue(code="other-environment", path="/trust", message=message))
    if check is not None:
        issues += check(environment, directory)
    if trust is None or issues:
        hint = next((issue.hint for issue in issues if issue.hint), "")
        raise InvalidRequestError(f"{environment_file} cannot be used", issues=issues, hint=hint)
    return EnvironmentConfig(environment=environment, trust=trust, directory=directory)
