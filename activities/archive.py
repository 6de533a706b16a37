"""Audit and logging: the legal archive in git, the SIEM's position, the closed histories."""

from temporalio import activity

from activities.failures import classified
from activities.ports import Archive, ConstitutionService, Deployment, EventLog, Runs
from activities.runs import RunRef
from constitution.checksum import Checksum
from constitution.model import Model
from constitution.release import DeliveredEvent, Verdict


class ArchiveInput(Model):
    """Which release to archive, and how its run ended."""

    environment: str
    generation: int
    outcome: str
    verdict: Verdict | None = None
    reason: str
    watch_evidence: Checksum | None = None
    approvers: tuple[str, ...] = ()


class Archived(Model):
    """The commit that holds the files, and the release's folder inside the repository."""

    commit: str
    folder: str


class SiemInput(Model):
    """Events that the SIEM must have taken."""

    environment: str
    events: tuple[DeliveredEvent, ...]


class SiemResult(Model):
    """The group, and its committed offset per partition, as ``<partition>``: offset."""

    group: str
    positions: dict[str, int]


class SealInput(Model):
    """Which runs' closed histories go into the folder of ``generation``."""

    environment: str
    generation: int
    version: str | None
    runs: tuple[RunRef, ...]


class ArchiveRelease:
    """Writes the legal archive."""

    def __init__(
        self,
        *,
        service: ConstitutionService,
        archive: Archive,
        events: EventLog,
        runs: Runs,
        deployment: Deployment,
    ) -> None:
        self._service = service
        self._archive = archive
        self._events = events
        self._runs = runs
        self._deployment = deployment

    @activity.defn
    @classified
    async def archive_release(self, x: ArchiveInput) -> Archived: ...
    @activity.defn
    @classified
    async def confirm_siem(self, x: SiemInput) -> SiemResult: ...
    @activity.defn
    @classified
    async def seal_record(self, x: SealInput) -> Archived: ...
