"""The fields of a release that plans and comparisons read, a tenth of its size. Pure.

With its statement and approvals a release takes 15 KiB of memory, and each plan or comparison reads all releases more
than once. With these fields alone, a process's memory hardly grows with the age of its environment.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from constitution.release import Kind, Release, Standing, Verdict


@dataclass(frozen=True, slots=True)
class Stood:
    """A standing; the fields are those of ``StandingRecord``, in a sixth of its memory."""

    standing: Standing
    verdict: Verdict | None
    reason: str
    update_id: str
    recorded_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """The compared fields of a release, named as in ``Release``; ``is_approved``: it carries approvals.

    ``workflow_id`` and ``run_id`` are of the run that made it, empty where unknown.
    """

    environment: str
    generation: int
    kind: Kind
    rings: tuple[str, ...]
    version: str | None
    checksum: str | None
    previous_generation: int | None
    rollback_of: int | None
    update_id: str
    event_id: str
    change_request: str | None
    effective_at: datetime
    approvers: tuple[str, ...]
    is_approved: bool
    workflow_id: str
    run_id: str
    standings: tuple[Stood, ...]
    delivered_at: datetime | None

    @property
    def standing(self) -> Standing | None:
        """The latest standing, or None while the release is unconfirmed."""
        return self.standings[-1].standing if self.standings else None


def versions_before(releases: Sequence[Past], checksum: str | None, *, reissued: bool = False) -> list[str]:
    """Return the versions that a document must be above: all that were live, but its own once it was withdrawn.

    Undone for reasons outside of the document, it may be tried again as it is; so may a poisoned one that the board
    reissues (``reissued``). The service looks in the same way
    (services/constitution_service/tables/release_queries.py).
    """
    mine = max((r for r in releases if r.checksum == checksum), key=lambda r: r.generation, default=None)
    undone = {Standing.WITHDRAWN, Standing.POISONED} if reissued else {Standing.WITHDRAWN}
    again = mine is not None and mine.standing in undone
    return [r.version for r in releases if r.version is not None and not (again and r.checksum == checksum)]


def past(release: Release) -> Past:
    """Return the compared fields of a release, without its statement and approvals.

    Equal texts of many releases are one string, and all moments have one zone.
    """
    return Past(
        environment=sys.intern(release.environment),
        generation=release.generation,
        kind=release.kind,
        rings=tuple(sys.intern(ring) for ring in release.rings),
        version=release.version,
        checksum=release.checksum,
        previous_generation=release.previous_generation,
        rollback_of=release.rollback_of,
        update_id=release.update_id,
        event_id=release.event_id,
        change_request=release.change_request,
        effective_at=release.effective_at.astimezone(UTC),
        approvers=tuple(sys.intern(person) for person in release.approvers),
        is_approved=bool(release.approvals),
        workflow_id=str(release.workflow.get("workflow_id") or ""),
        run_id=str(release.workflow.get("run_id") or ""),
        standings=tuple(
            Stood(
                standing=standing.standing,
                verdict=standing.verdict,
                reason=standing.reason,
                update_id=release.update_id if standing.update_id == release.update_id else standing.update_id,
                recorded_at=standing.recorded_at.astimezone(UTC),
            )
            for standing in release.standings
        ),
        delivered_at=release.delivery.delivered_at and release.delivery.delivered_at.astimezone(UTC),
    )
