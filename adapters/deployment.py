"""This deployment as files say it: ``environment.toml``, the trust policy beside it, and the folders it names."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from constitution.environment import Environment
from constitution.errors import ConstitutionError, InvalidRequestError, Issue
from constitution.trust.trust_policy import TrustPolicy
from signatures.regular_file import read_regular_text
from signatures.trust_files import MAX_FILE, load_trust


@dataclass(frozen=True, slots=True, kw_only=True)
class FileDeployment:
    """Implements ``activities.ports.Deployment``; read once, at start.

    Args:
        environment: parsed ``environment.toml``.
        trust: parsed trust policy of the same environment.
        gate_directory: holds ``policy/`` and ``chaos/``.
        inbox_directory: the only folder from which an update may name files.
        scratch_directory: private, for the gate's runs.
        links: addresses for people, by name.
    """

    environment: Environment
    trust: TrustPolicy
    gate_directory: Path
    inbox_directory: Path
    scratch_directory: Path
    links: dict[str, str]


def load_deployment(environment_file: Path, *, scratch: Path, links: Mapping[str, str]) -> FileDeployment:
    """Read ``environment.toml`` and what it names; make the scratch folder.

    Raises:
        InvalidRequestError: with every problem: a file that cannot be read, a trust policy of another environment, a
            gate without its two suites.
    """
    hint = "set ENVIRONMENT_FILE to the environment.toml of this deployment"
    environment = Environment.parse(read_regular_text(environment_file, MAX_FILE, hint=hint))
    folder = environment_file.resolve().parent
    gate, inbox = folder / environment.gate, folder / environment.inbox
    issues: list[Issue] = []
    trust: TrustPolicy | None = None
    try:
        trust = load_trust(folder / environment.trust)
    except ConstitutionError as error:
        issues += error.issues or [Issue(code=error.code, path="/trust", message=error.message, hint=error.hint)]
    if trust is not None and trust.environment != environment.environment:
        said = f"the trust policy is for {trust.environment!r}, this environment is {environment.environment!r}"
        issues.append(Issue(code="other-environment", path="/trust", message=said))
    issues += [
        Issue(code="no-gate", path="/gate", message=f"{gate / suite} is no folder")
        for suite in ("policy", "chaos")
        if not _is_folder(gate / suite)
    ]
    try:
        scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        issues.append(Issue(code="no-scratch", path="EVIDENCE_DIRECTORY", message=f"{scratch}: {error}"))
    if trust is None or issues:
        raise InvalidRequestError(f"{environment_file} cannot be used", issues=issues)
    return FileDeployment(
        environment=environment,
        trust=trust,
        gate_directory=gate,
        inbox_directory=inbox,
        scratch_directory=scratch,
        links=dict(links),
    )


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name too long, a folder closed to us
        return False
