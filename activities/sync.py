"""Runbook step 4, first half: every target obeys the release, and decides as the domain does."""

from temporalio import activity

from activities.failures import classified
from activities.ports import Deployment, TargetClient
from constitution.checksum import Checksum
from constitution.model import Model


class SyncInput(Model):
    """Which release every target of ``rings`` must report; ``checksum`` null: they must report none."""

    environment: str
    generation: int
    checksum: Checksum | None
    rings: tuple[str, ...]
    deadline_seconds: float
    require_all: bool


class SyncReport(Model):
    """Target ids: proven, answering with something else, and not answering (never the same as converged)."""

    converged: tuple[str, ...]
    lagging: tuple[str, ...]
    unreachable: tuple[str, ...]


class GoldenInput(Model):
    """Which release the policy engines of ``rings`` must decide by."""

    environment: str
    generation: int
    checksum: Checksum
    rings: tuple[str, ...]


class GoldenResult(Model):
    """How many engines answered how many vectors each; ``mismatches`` is empty on success."""

    targets: tuple[str, ...]
    vectors: int
    mismatches: tuple[str, ...]


class Sync:
    """Asks targets; changes nothing but what a target itself refreshes."""

    def __init__(self, *, targets: TargetClient, deployment: Deployment) -> None:
        self._targets = targets
        self._deployment = deployment

    @activity.defn
    @classified
    async def sync_targets(self, x: SyncInput) -> SyncReport: ...
    @activity.defn
    @classified
    async def run_golden_vectors(self, x: GoldenInput) -> GoldenResult: ...
