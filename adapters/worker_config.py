"""The environment as the worker needs it: with the regression gate, the inbox, a scratch folder, and links."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from adapters.environment_config import EnvironmentConfig, load_environment_config
from adapters.target_sources import fleet_of
from constitution.environment import Environment
from constitution.errors import Issue
from constitution.target_sources import Fleet


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig(EnvironmentConfig):
    """Implements ``activities.ports.ActivityConfig``.

    Args:
        scratch_directory: private, for the gate's runs.
        links: addresses for people, by name.
    """

    scratch_directory: Path
    links: dict[str, str]

    @property
    def gate_directory(self) -> Path:
        """Holds ``policy/`` and ``chaos/``."""
        return self.directory / self.environment.gate

    async def fleet(self, rings: Collection[str] | None = None) -> Fleet:
        """Return every target of these rings, or of all, as it is listed now.

        Raises:
            UnavailableError: a source gives no list, or fewer than it must.
        """
        return await fleet_of(self.environment, self.directory, rings)

    @property
    def inbox_directory(self) -> Path:
        """The only folder from which an update may name files."""
        return self.directory / self.environment.inbox


def load_worker_config(environment_file: Path, *, scratch: Path, links: Mapping[str, str]) -> WorkerConfig:
    """Read ``environment.toml`` and what it names; make the scratch folder.

    Raises:
        InvalidRequestError: with every problem, also of a gate without its two suites and of the scratch folder.
    """

    def check(environment: Environment, directory: Path) -> Iterator[Issue]:
        for suite in ("policy", "chaos"):
            folder = directory / environment.gate / suite
            if not _is_folder(folder):
                yield Issue(code="no-gate", path="/gate", message=f"{folder} is no folder")
        try:
            scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            yield Issue(code="no-scratch", path="EVIDENCE_DIRECTORY", message=f"{scratch}: {error}")

    config = load_environment_config(environment_file, check)
    return WorkerConfig(
        environment=config.environment,
        holder=config.holder,
        directory=config.directory,
        scratch_directory=scratch,
        links=dict(links),
    )


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name too long, a folder closed to us
        return False
