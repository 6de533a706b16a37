"""Reconciliation, first look: which releases are live, and which runs have left them unfinished.

A *run group* is every run of one update id: the update, its rollback, and their guards. A group whose runs have all
been closed for a while cannot finish anything any more; reconciliation finishes its work.
"""

import hashlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio import activity

from activities.failures import classified
from activities.keys import require_environment
from activities.past_releases import past_releases
from activities.ports import ActivityConfig, ConstitutionService, Runs
from activities.reconcile.ports import RunSearch
from activities.runs import RunRef
from constitution.api import LeaseHolder
from constitution.checksum import Checksum
from constitution.errors import InvalidRequestError, NotFoundError
from constitution.messages import undo_command
from constitution.model import Model
from constitution.names import Names
from constitution.past import Past
from constitution.reconciliation import Finding
from constitution.release import Standing

KNOWN_FOR = timedelta(hours=24)
"""Temporal must keep closed runs at least that long (retention); of older ones nothing is concluded."""

NEWEST = 10  # releases whose run is looked up; more than that between two looks is no way to hide one
COMPLETED = "COMPLETED"
GUARD = "ConstitutionGuard"
ASLEEP = "waiting"  # the phase of a guard that nothing has woken


class ReconcileInput(Model):
    """Which environment, and after how many seconds a closed run or a young release is judged."""

    environment: str
    closed_seconds: float


class Live(Model):
    """A release that is current in ``rings``. ``settled``: delivered, and old enough to be compared with."""

    generation: int
    version: str | None
    checksum: Checksum | None
    event_id: str
    rings: tuple[str, ...]
    effective_at: datetime
    settled: bool


class Unguarded(Model):
    """A run that ended without an outcome, and whose guard did not come to its end either."""

    parent: RunRef
    update_id: str
    status: str


class Survey(Model):
    """The live releases, and the unfinished work of dead runs.

    Args:
        mark: changes with every release, standing and lease: comparisons between two equal marks hold.
        highest: generation; 0 before the first release.
        live: the current releases, lowest generation first.
        fallback: the confirmed document that a rollback would restore.
        unguarded: runs that need their guard again, at most one of a group.
        asleep: guards that Temporal has not woken though every run of their group has closed: a reset takes a run's
            children away from it.
        orphans: update ids that hold the lease, or have an unconfirmed release live, with nobody left to act.
        findings: for a person, or to report beside the repair.
    """

    mark: str
    highest: int
    live: tuple[Live, ...]
    fallback: Checksum | None
    unguarded: tuple[Unguarded, ...]
    orphans: tuple[str, ...]
    asleep: tuple[RunRef, ...] = ()
    findings: tuple[Finding, ...]


class Reconcile:
    """Looks at releases, lease and runs together; changes nothing.

    Args:
        service: constitution-service.
        config: this environment.
        runs: Temporal, run by run.
        search: Temporal, by what runs say about themselves.
        names: of guards.
    """

    def __init__(
        self, *, service: ConstitutionService, config: ActivityConfig, runs: Runs, search: RunSearch, names: Names
    ) -> None:
        self._service = service
        self._config = config
        self._runs = runs
        self._search = search
        self._names = names

    @activity.defn
    @classified
    async def survey(self, x: ReconcileInput) -> Survey:
        """Return the live releases, and the dead run groups that left something unfinished.

        Assumes nothing. Twice, killed half-way, or late: only reads; a caller takes the lease before it acts on it.

        Raises:
            UnavailableError: constitution-service or Temporal does not answer.
        """
        require_environment(self._config, x.environment)
        now = datetime.now(UTC)
        before = now - timedelta(seconds=x.closed_seconds)
        lease = await self._service.lease()
        releases = await past_releases(self._service)
        live = current(releases, self._config.environment.rings())
        findings = _undelivered(releases, before)
        findings += await self._out_of_band(releases[-NEWEST:], now)
        unguarded, asleep = await self._unanswered(now, before)
        orphans, more = await self._orphans(live, lease, before, {run.update_id for run in unguarded})
        return Survey(
            mark=_mark(releases, lease),
            highest=releases[-1].generation if releases else 0,
            live=tuple(_live(release, rings, before) for release, rings in live),
            fallback=_fallback(releases, live),
            unguarded=unguarded,
            orphans=orphans,
            asleep=asleep,
            findings=(*findings, *more),
        )

    async def _unanswered(self, now: datetime, before: datetime) -> tuple[tuple[Unguarded, ...], tuple[RunRef, ...]]:
        """Return dead runs without an outcome, the oldest of each group, whose guard is dead too; and guards asleep."""
        found: dict[str, Unguarded] = {}
        asleep: list[RunRef] = []
        ended = await self._search.without_outcome(now - KNOWN_FOR)
        for run in sorted(ended, key=lambda run: run["start_time"]):
            update_id = str(run["update_id"])
            if update_id in found or run["close_time"] > before:
                continue
            guard = await self._known(self._names.guard_id(run["workflow_id"], run["run_id"]), None)
            if guard is not None and (guard["status"] == COMPLETED or not _closed([guard], before)):
                # It was, or is being, answered; or a foreign run has its id, and the group is an orphan.
                if await self._is_asleep(guard, update_id, before):
                    asleep.append(RunRef(workflow_id=guard["workflow_id"], run_id=guard["run_id"]))
                continue
            if not _closed(await self._search.carrying(update_id), before):
                continue
            parent = RunRef(workflow_id=run["workflow_id"], run_id=run["run_id"])
            found[update_id] = Unguarded(parent=parent, update_id=update_id, status=run["status"])
        return tuple(found[update_id] for update_id in sorted(found)), tuple(asleep)

    async def _is_asleep(self, guard: dict[str, Any], update_id: str, before: datetime) -> bool:
        """Say whether a guard waits for a parent that has closed, and that was not reset to a run that goes on."""
        if not self._is_guard(guard) or guard["close_time"] is not None or guard["phase"] != ASLEEP:
            return False
        group = [run for run in await self._search.carrying(update_id) if run["type"] != GUARD]
        return _closed(group, before)

    async def _orphans(
        self,
        live: Sequence[tuple[Past, tuple[str, ...]]],
        lease: LeaseHolder | None,
        before: datetime,
        guarded_now: set[str],
    ) -> tuple[tuple[str, ...], list[Finding]]:
        """Return update ids whose run group is closed, though their release is unconfirmed or they hold the lease."""
        orphans: set[str] = set()
        findings: list[Finding] = []
        for release, _ in live:
            if release.standing is not None or release.effective_at > before or release.update_id in guarded_now:
                continue
            dead = await self._dead(release.update_id, release.workflow_id, before)
            if dead:
                orphans.add(release.update_id)
            elif dead is None:
                findings.append(_unconfirmed(release))
        if lease is not None and lease.acquired_at <= before and lease.update_id not in guarded_now:
            dead = await self._dead(lease.update_id, lease.workflow_id, before)
            if dead:
                orphans.add(lease.update_id)
            elif dead is None:
                findings.append(_by_hand(lease))
        return tuple(sorted(orphans)), findings

    async def _dead(self, update_id: str, workflow_id: str, before: datetime) -> bool | None:
        """Say whether all of a group have been closed for long enough; None: Temporal knows none of them."""
        group = await self._search.carrying(update_id)
        named = await self._known(workflow_id, None) if workflow_id else None
        group += [named] if named is not None else []
        guards = [await self._known(self._names.guard_id(run["workflow_id"], run["run_id"]), None) for run in group]
        group += [guard for guard in guards if guard is not None and self._is_guard(guard)]
        return _closed(group, before) if group else None

    def _is_guard(self, run: dict[str, Any]) -> bool:
        """Whether the run under a guard's id is one: anybody who reaches Temporal may start any run under any id."""
        return (run["type"], run["task_queue"]) == (GUARD, self._names.task_queue())

    async def _out_of_band(self, releases: Iterable[Past], now: datetime) -> list[Finding]:
        """Return the releases that no run of ours made and nobody undid, as far back as Temporal must remember."""
        findings = []
        for release in releases:
            undone = release.standing in (Standing.WITHDRAWN, Standing.POISONED)
            if undone or now - release.effective_at > KNOWN_FOR:
                continue
            run = await self._known(release.workflow_id, release.run_id or None)
            if run is None or run["update_id"] != release.update_id:
                findings.append(
                    Finding(
                        code="out-of-band",
                        where=f"generation {release.generation}",
                        message=f"no run of Temporal made it: it names {release.workflow_id or 'none'}",
                        command=f"constitution show {release.generation}; {undo_command(release.generation)}",
                    )
                )
        return findings

    async def _known(self, workflow_id: str, run_id: str | None) -> dict[str, Any] | None:
        try:
            return await self._runs.describe(workflow_id, run_id)
        except (NotFoundError, InvalidRequestError):  # the latter: a run id that is none, named by an untrusted caller
            return None


def current(releases: Sequence[Past], rings: Iterable[str]) -> list[tuple[Past, tuple[str, ...]]]:
    """Return the current releases, each with its rings.

    Args:
        releases: lowest generation first.
        rings: of the environment.
    """
    newest: dict[int, tuple[Past, tuple[str, ...]]] = {}
    for ring in rings:
        release = next((release for release in reversed(releases) if ring in release.rings), None)
        if release is not None:
            _, known = newest.get(release.generation, (release, ()))
            newest[release.generation] = (release, (*known, ring))
    return [newest[generation] for generation in sorted(newest)]


def _live(release: Past, rings: tuple[str, ...], before: datetime) -> Live:
    return Live(
        generation=release.generation,
        version=release.version,
        checksum=release.checksum,
        event_id=release.event_id,
        rings=rings,
        effective_at=release.effective_at,
        settled=release.delivered_at is not None and release.effective_at <= before,
    )


def _closed(runs: Sequence[dict[str, Any]], before: datetime) -> bool:
    return all(run["close_time"] is not None and run["close_time"] <= before for run in runs)


def _fallback(releases: Sequence[Past], live: Sequence[tuple[Past, tuple[str, ...]]]) -> Checksum | None:
    now_live = {release.checksum for release, _ in live}
    confirmed = (r.checksum for r in reversed(releases) if r.standing is Standing.CONFIRMED)
    return next((checksum for checksum in confirmed if checksum is not None and checksum not in now_live), None)


def _mark(releases: Sequence[Past], lease: LeaseHolder | None) -> str:
    rows = [(r.generation, r.standing, r.delivered_at is not None) for r in releases]
    return hashlib.sha256(repr((rows, lease and (lease.update_id, lease.acquired_at))).encode()).hexdigest()


def _undelivered(releases: Sequence[Past], before: datetime) -> list[Finding]:
    return [
        Finding(
            code="undelivered",
            where=f"generation {release.generation}",
            message="its event has not been delivered; the relay of constitution-service owns it and goes on trying",
            command="make status  # then the log of constitution-service: relay_waits, relay_failed",
        )
        for release in releases
        if release.delivered_at is None and release.effective_at <= before
    ]


def _unconfirmed(release: Past) -> Finding:
    undoes = release.rollback_of if release.kind.undoes else None
    what = f"it undoes generation {undoes}" if undoes else "it is live"
    return Finding(
        code="unconfirmed",
        where=f"generation {release.generation}",
        message=f"{what}, is not confirmed, and was made by no run that Temporal knows: no run will confirm or undo it",
        command=f"{undo_command(undoes or release.generation)}  # or confirm it as it was loaded, with --confirm and"
        f" --update-id {release.update_id}",
    )


def _by_hand(lease: LeaseHolder) -> Finding:
    return Finding(
        code="lease-by-hand",
        where=f"update {lease.update_id}",
        message=f"{lease.workflow_id or 'somebody'} has held the lease since"
        f" {lease.acquired_at.isoformat(timespec='seconds')}, and Temporal knows no such run",
        command=f"constitution releases  # the load by hand is finished under --update-id {lease.update_id}; it ends by"
        " itself when its holder gives no sign of life",
    )
