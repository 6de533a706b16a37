"""One environment as its files say it: ``environment.toml``, read once at start, and the trust policy that it names."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from constitution.environment import Environment
from constitution.errors import ConstitutionError, InvalidRequestError, Issue
from constitution.trust.trust_policy import TrustPolicy
from signatures.regular_file import read_regular_text
from signatures.trust_files import MAX_FILE
from signatures.trust_holder import TrustHolder

HINT = "set ENVIRONMENT_FILE to the environment.toml of this environment"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentConfig:
    """What a process knows of its environment.

    Args:
        environment: parsed ``environment.toml``.
        holder: of the trust policy of the same environment.
        directory: the folder of ``environment.toml``.
    """

    environment: Environment
    holder: TrustHolder
    directory: Path

    @property
    def trust(self) -> TrustPolicy:
        """The trust policy in force; ask again for each decision, because a next version may have been taken."""
        return self.holder.policy

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
    holder: TrustHolder | None = None
    try:
        holder = TrustHolder.load(directory / environment.trust)
    except ConstitutionError as error:
        issues += error.issues or [Issue(code=error.code, path="/trust", message=error.message, hint=error.hint)]
    if holder is not None and holder.policy.environment != environment.environment:
        message = (
            f"the trust policy is for {holder.policy.environment!r}, this environment is {environment.environment!r}"
        )
        issues.append(Issue(code="other-environment", path="/trust", message=message))
    if check is not None:
        issues += check(environment, directory)
    if holder is None or issues:
        hint = next((issue.hint for issue in issues if issue.hint), "")
        raise InvalidRequestError(f"{environment_file} cannot be used", issues=issues, hint=hint)
    return EnvironmentConfig(environment=environment, holder=holder, directory=directory)
