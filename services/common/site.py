"""One environment as a service sees it: ``environment.toml`` and the trust policy it names, read once at start."""

from dataclasses import dataclass
from pathlib import Path

from constitution.environment import Environment
from constitution.errors import InvalidRequestError
from constitution.trust.trust_policy import TrustPolicy
from signatures.regular_file import read_regular_text
from signatures.trust_files import MAX_FILE, load_trust


@dataclass(frozen=True, slots=True)
class Site:
    """The environment, whom it trusts, and the folder that both were read from."""

    environment: Environment
    trust: TrustPolicy
    directory: Path


def load_site(environment_file: Path) -> Site:
    """Read ``environment.toml`` and its trust policy.

    Raises:
        InvalidRequestError: a file is missing or not valid, or the two name different environments.
    """
    try:
        text = read_regular_text(environment_file, MAX_FILE)
    except InvalidRequestError as error:
        raise InvalidRequestError(f"ENVIRONMENT_FILE: {error}", hint=error.hint) from error
    environment = Environment.parse(text)
    directory = environment_file.resolve().parent
    trust = load_trust(directory / environment.trust)
    if trust.environment != environment.environment:
        raise InvalidRequestError(
            f"{environment_file} is for {environment.environment!r}, its trust policy for {trust.environment!r}"
        )
    return Site(environment=environment, trust=trust, directory=directory)
