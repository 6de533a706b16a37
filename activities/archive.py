"""Audit and logging: the legal archive in git, the SIEM's position, the closed event histories."""

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import Field, ValidationError
from temporalio import activity

from activities.blocks import when
from activities.decisions import require_signed_denial
from activities.failures import classified
from activities.folder import (
    change_log_key,
    change_log_row,
    denial_folder,
    denial_readme,
    folder_of,
    readme,
    refusal_readme,
    require_backed,
    table_row,
)
from activities.keys import require_environment
from activities.past_releases import undoing
from activities.ports import ActivityConfig, Archive, ConstitutionService, EventLog, Runs
from activities.receipt import sealed
from activities.refused_update import known_of, require_known
from activities.runs import RunRef
from constitution.archived_outcome import ArchivedOutcome, ReleaseOutcome, record_of
from constitution.checksum import Checksum
from constitution.errors import (
    ContentError,
    ForbiddenError,
    NotApprovedError,
    NotFoundError,
    NotYetError,
    UntrustedError,
)
from constitution.model import Model
from constitution.release import DeliveredEvent, Envelope, Kind, Release, UpdateId
from constitution.trust.approval import ApprovalPredicate
from constitution.trust.attestation import SyncPredicate
from constitution.watch.evidence import WatchEvidence
from signatures.attestations import verify_attestation
from signatures.audit_chain import verify_head
from signatures.detect import detect

SIEM_GROUP = "siem"
HEAD_PATIENCE = timedelta(seconds=5)  # the relay signs a head within a second of a release, if nothing is down
HEAD_POLL = timedelta(milliseconds=200)
SIEM_POLL = timedelta(seconds=1)  # a cancel is noticed within it


class ArchiveInput(Model):
    """Which outcome of which release to archive; its facts come from constitution-service's record.

    Args:
        watch_evidence: digest of the watch's evidence; left out if it is of another release.
    """

    environment: str
    generation: int
    outcome: ReleaseOutcome
    watch_evidence: Checksum | None = None


class Archived(Model):
    """The commit that holds the files, and the release's folder inside the repository."""

    commit: str
    folder: str


class SiemInput(Model):
    """Events that the SIEM must have taken, and how long one attempt waits for that.

    A forwarder commits within a second of its sink's answer; the default is for a sink that is slow.
    """

    environment: str
    events: tuple[DeliveredEvent, ...]
    patience_seconds: Annotated[float, Field(ge=0, le=3600)] = 30.0


class SiemResult(Model):
    """The group (without the namespace's prefix), and its committed offset by partition."""

    group: str
    positions: dict[str, int]


class HistoriesInput(Model):
    """Which runs' closed histories go into the folder of ``generation``."""

    environment: str
    generation: int
    runs: tuple[RunRef, ...]


class RefusalInput(Model):
    """An update or rollback that ended without a release, and that nobody denied: expired, aborted, or refused."""

    environment: str
    update_id: UpdateId
    what: str  # update | rollback
    version: str | None = None
    checksum: Checksum | None = None
    change_request: str | None = None
    reason: str
    at: datetime
    workflow_id: str
    run_id: str


class RejectionInput(RefusalInput):
    """A denial of the board: of what, by whom and why, and everything signed about it."""

    denied_by: str
    decisions: tuple[Envelope, ...]


class ArchiveRelease:
    """Writes the legal archive."""

    def __init__(
        self,
        *,
        service: ConstitutionService,
        archive: Archive,
        events: EventLog,
        runs: Runs,
        config: ActivityConfig,
    ) -> None:
        self._service = service
        self._archive = archive
        self._events = events
        self._runs = runs
        self._config = config

    @activity.defn
    @classified
    async def archive_release(self, x: ArchiveInput) -> Archived:
        """Put everything about a release into its folder, and one row into the change log, in one commit.

        Assumes: the release is delivered. Everything is read anew from its store, not from the caller. A caller that
        knows less than an earlier one (a guard, for its terminated parent) removes no verdict, approver or watch
        evidence from the outcome.
        Twice, or killed half-way: files that depend on the release alone, the head of the audit stream that was
        archived first, and a row with a key of its own (``<environment>/<generation>/<outcome>``), so the same call
        again makes no commit. Late, after its caller died: a record more that is true.

        Raises:
            ConflictError: the release was not confirmed, or not undone: the outcome is not what became of it.
            NotFoundError: no such release, or a part of it is missing from the store.
            NotYetError: its event is not on the topic yet, or no head of the audit stream is as new as the release.
            UnavailableError: the repository or the service does not answer.
        """
        require_environment(self._config, x.environment)
        activity.heartbeat("reading")
        release = await self._service.release(x.generation)
        folder = folder_of(release.version, release.generation)
        path = f"{folder}/outcome-{x.outcome}.json"
        require_backed(release, x.outcome)
        undo = await undoing(self._service, x.generation) if x.outcome == "rolled_back" else None
        x = x.model_copy(update={"watch_evidence": await self._watched(release, x.watch_evidence)})
        outcome = _outcome(x, release, undo, read_outcome(path, await self._archive.read(path)))
        parts = {
            **await self._document(release),
            **await self._approval(release),
            **await self._evidence(release, x.watch_evidence),
            **await self._event(release),
            "release-statement.json": _json(release.statement),
            f"outcome-{x.outcome}.json": _json(outcome),
            f"audit-head-{x.outcome}.json": await self._audit_head(release, f"{folder}/audit-head-{x.outcome}.json"),
            "README.md": readme(release).encode(),
        }
        activity.heartbeat("committing")
        commit = await self._archive.commit(
            {f"{folder}/{name}": data for name, data in parts.items()},
            change_log_row=change_log_row(release, x.outcome, outcome.approvers),
            message=f"Archive {folder.rpartition('/')[2]}: {x.outcome}\n\nEnvironment: {x.environment}\n",
            manifest=folder,
        )
        return Archived(commit=commit, folder=folder)

    @activity.defn
    @classified
    async def archive_denial(self, x: RejectionInput) -> Archived:
        """Put a denial into a folder of its own, and one row into the change log: no release has one.

        Twice, or killed half-way: the files depend on the input alone, so the same call again makes no commit. Late,
        after its caller died: a record more that is true.

        Raises:
            NotApprovedError: nothing that was signed is this person's denial, or it denies another update.
            UnavailableError: the repository or the service does not answer.
        """
        require_environment(self._config, x.environment)
        denial = await asyncio.to_thread(
            require_signed_denial,
            x.decisions,
            person=x.denied_by,
            environment=x.environment,
            checksum=x.checksum,
            trust=self._config.trust,
            now=datetime.now(UTC),
        )
        await self._require_denied(x, denial)
        folder = denial_folder(x.update_id)
        files = {
            "outcome-rejected.json": _json(x.model_copy(update={"decisions": ()})),
            "README.md": denial_readme(folder).encode(),
            **{f"approvals/{n:02d}.dsse.json": _json(envelope) for n, envelope in enumerate(x.decisions, start=1)},
        }
        if x.change_request is not None:
            files["change-request.json"] = _json(await self._service.change_request(x.change_request))
        return await self._archive_rejected(folder, files, x, f"{x.denied_by} denied")

    @activity.defn
    @classified
    async def archive_refusal(self, x: RefusalInput) -> Archived:
        """Put what was refused without a denial into a folder of its own, and one row into the change log.

        Twice, or killed half-way: the files depend on the input alone, so the same call again makes no commit. Late,
        after its caller died: a record more that is true. The reason is the caller's word; a release gives it the lie.

        Raises:
            ForbiddenError: constitution-service knows nothing that it names: whoever starts a run must not write here.
            ConflictError: the update went live: its folder says what became of it.
            NotYetError: it has not ended.
            UnavailableError: the repository or the service does not answer.
        """
        require_environment(self._config, x.environment)
        if x.what == "update" and x.change_request is None:  # of a guard: it knows its run's update and no more
            x = x.model_copy(update=await known_of(self._service, x.update_id))
        request = await require_known(self._service, x.what, x.update_id, x.change_request, x.checksum)
        folder = denial_folder(x.update_id)
        files = {"outcome-rejected.json": _json(x), "README.md": refusal_readme(folder).encode()}
        if request is not None:
            files["change-request.json"] = _json(request)
        return await self._archive_rejected(folder, files, x, "—")

    async def _archive_rejected(self, folder: str, files: dict[str, bytes], x: RefusalInput, by: str) -> Archived:
        row = table_row(
            (
                x.version or "none",
                "—",
                x.checksum or "—",
                "rejected" if x.what == "update" else f"{x.what} rejected",
                x.change_request or "—",
                by,
                when(x.at),
            )
        )
        commit = await self._archive.commit(
            {f"{folder}/{name}": data for name, data in files.items()},
            change_log_row=(change_log_key(x.environment, x.update_id, "rejected"), row),
            message=f"Archive {folder.rpartition('/')[2]}: rejected\n\nEnvironment: {x.environment}\n",
            manifest=folder,
        )
        return Archived(commit=commit, folder=folder)

    async def _require_denied(self, x: RejectionInput, denial: ApprovalPredicate) -> None:
        """Demand that a signed denial is about this update, or that it is a rollback's."""
        if (x.what == "update") != (denial.kind is Kind.UPDATE):
            raise NotApprovedError(f"{x.denied_by} denied a {denial.kind}, not this {x.what}")
        if denial.kind is not Kind.UPDATE:
            return
        if (x.version, x.change_request) != (denial.version, denial.change_request):
            raise NotApprovedError(f"{x.denied_by} denied {denial.change_request}, not {x.change_request}")
        if denial.plan is not None:
            denied = denial.plan.update_id
        else:  # one that was signed before its run asked: it denies every update of its change request
            record = await self._service.update(x.update_id)
            denied = record.update_id if record.change_request == denial.change_request else ""
        if denied != x.update_id:
            raise NotApprovedError(f"{x.denied_by} denied another update than {x.update_id}")

    @activity.defn
    @classified
    async def confirm_siem(self, x: SiemInput) -> SiemResult:
        """Wait until the SIEM's consumer group has committed past every event, heartbeating.

        Twice, killed half-way, or late: it only reads. A cancel is noticed within a second.

        Raises:
            NotYetError: it has not within one attempt; the missing events are named.
        """
        require_environment(self._config, x.environment)
        last = {p: max(e.offset for e in x.events if e.partition == p) for p in sorted({e.partition for e in x.events})}
        loop = asyncio.get_running_loop()
        ends = loop.time() + x.patience_seconds
        while True:
            positions = {p: await self._events.group_position(SIEM_GROUP, p) or 0 for p in last}
            behind = {p: offset for p, offset in last.items() if positions[p] <= offset}
            activity.heartbeat({str(p): position for p, position in positions.items()})
            if not behind:
                return SiemResult(group=SIEM_GROUP, positions={str(p): position for p, position in positions.items()})
            if loop.time() >= ends:
                lag = ", ".join(f"partition {p} at {positions[p]}, event at {offset}" for p, offset in behind.items())
                raise NotYetError(
                    f"the SIEM has not taken the event yet: {lag}",
                    hint="look at the siem-forwarder's log and at its sink",
                )
            await asyncio.sleep(SIEM_POLL.total_seconds())

    @activity.defn
    @classified
    async def archive_histories(self, x: HistoriesInput) -> Archived:
        """Add the closed histories of a release's runs to its folder, and its sealed receipt (invariant 9).

        Another update's runs are left out. Assumes: the runs have closed, or are about to. Twice, or killed half-way: a
        closed history never changes, and a receipt is sealed once, so the same call again makes no commit. Late: adds
        what is true; a history that comes after the receipt is listed by the receipt of the next release.

        Raises:
            NotYetError: a run has not closed; or a file in the archive was altered, and so nothing is sealed over it.
            NotFoundError: there is no such release; Temporal no longer has a run (retention).
            ForbiddenError: none of these runs is of this release.
        """
        require_environment(self._config, x.environment)
        release = await self._service.release(x.generation)
        folder = folder_of(release.version, release.generation)
        files = {}
        for ref in x.runs:
            activity.heartbeat(ref.workflow_id)
            run = await self._runs.describe(ref.workflow_id, ref.run_id)
            if run["update_id"] != release.update_id:
                continue
            if run["close_time"] is None:
                raise NotYetError(f"the run {ref.workflow_id} is {run['status']}: its history is not closed")
            name = f"{run['type']}-{run['run_id']}.json"
            files[f"histories/{name}"] = await self._runs.event_history(run["workflow_id"], run["run_id"])
        if not files:
            raise ForbiddenError(f"none of these runs is of update {release.update_id}, which made {folder}")
        activity.heartbeat("sealing")
        # One that is archived stays as it is: a receipt may have been sealed over it.
        missing = {name: data for name, data in files.items() if await self._archive.read(f"{folder}/{name}") is None}
        files = missing | await sealed(self._service, self._archive, release, missing)
        commit = await self._archive.commit(
            {f"{folder}/{name}": data for name, data in files.items()},
            change_log_row=None,
            message=f"Archive {folder.rpartition('/')[2]}: closed histories\n\nEnvironment: {x.environment}\n",
            manifest=folder,
        )
        return Archived(commit=commit, folder=folder)

    async def _document(self, release: Release) -> dict[str, bytes]:
        if release.checksum is None:
            return {}
        files = {"document.json": await self._service.artifact(release.checksum)}
        for number, data in enumerate(await self._service.artifact_signatures(release.checksum), start=1):
            files[f"signatures/{number:02d}{_suffix(data)}"] = data
        return files

    async def _approval(self, release: Release) -> dict[str, bytes]:
        files = {
            f"approvals/{n:02d}.dsse.json": _json(envelope) for n, envelope in enumerate(release.approvals, start=1)
        }
        if release.change_request is not None:
            files["change-request.json"] = _json(await self._service.change_request(release.change_request))
        return files

    async def _evidence(self, release: Release, watch: str | None) -> dict[str, bytes]:
        files = {}
        if release.evidence is not None:
            record = await self._service.evidence(release.evidence)
            files["evidence/evidence.json"] = _json(record)
            for number, suite in enumerate(record.suites, start=1):
                files[f"evidence/{number:02d}.junit.xml"] = await self._service.blob(suite.junit)
        if watch is not None:
            files[f"evidence/watch-{watch.removeprefix('sha256:')[:12]}.json"] = await self._service.blob(watch)
        for listing in await self._listings(release):
            try:
                data = await self._service.blob(listing)
            except ContentError as error:  # the signed count and digest prove the same without it
                activity.logger.warning("list_of_targets_left_out", extra={"digest": listing, "reason": error.message})
            else:
                files[f"evidence/targets-{listing.removeprefix('sha256:')[:12]}.tsv"] = data
        return files

    async def _listings(self, release: Release) -> list[Checksum]:
        """Return the digests of the lists of targets that assessors signed about a release."""
        found = []
        for envelope in await self._service.attestations(generation=release.generation):
            with contextlib.suppress(UntrustedError):
                said = await asyncio.to_thread(verify_attestation, envelope, self._config.trust)
                if isinstance(said, SyncPredicate):
                    found += [fleet.listing for fleet in said.listings()]
        return found

    async def _watched(self, release: Release, watch: Checksum | None) -> Checksum | None:
        """Return the digest of a watch's evidence if it is of this release; a caller may name anything."""
        if watch is None:
            return None
        try:
            other = WatchEvidence.read(await self._service.blob(watch)).differences(release)
        except ContentError as error:
            other = (error.message,)
        if other:
            activity.logger.warning("watch_evidence_left_out", extra={"digest": watch, "reason": "; ".join(other)})
        return None if other else watch

    async def _audit_head(self, release: Release, path: str) -> bytes:
        """Return how far the audit stream reaches, signed: what deletes its newest events contradicts the archive."""
        there = await self._archive.read(path)
        if there is not None:
            return there
        loop = asyncio.get_running_loop()
        ends = loop.time() + HEAD_PATIENCE.total_seconds()
        while True:
            with contextlib.suppress(NotFoundError):  # nothing was ever audited
                envelope = await self._service.audit_head()
                if verify_head(envelope, self._config.trust).time >= release.effective_at:
                    return _json(envelope)
            if loop.time() >= ends:
                raise NotYetError(
                    "no signed head of the audit stream is as new as the release",
                    hint="constitution doctor  # does constitution-service reach Kafka and the artifact store?",
                )
            await asyncio.sleep(HEAD_POLL.total_seconds())

    async def _event(self, release: Release) -> dict[str, bytes]:
        """Return the events as they are on the topic: the first of each tenant, as duplicates may come later."""
        files = {}
        found = await self._events.find_events(release.generation, release.effective_at)
        for number, tenant in enumerate(self._config.environment.tenants, start=1):
            identity = f"{release.event_id}:{tenant}"
            own = [event for event in found if event["event_id"] == identity]
            if not own:
                raise NotYetError(f"the event {identity} is not on the topic yet")
            files[f"event-{number:02d}.json"] = own[0]["raw"].encode()
        return files


def read_outcome(path: str, data: bytes | None) -> ArchivedOutcome | None:
    """Return an archived outcome; None if there is none, or it cannot be read."""
    if data is None:
        return None
    try:
        return ArchivedOutcome.model_validate_json(data)
    except ValidationError:
        activity.logger.warning("archived_outcome_unreadable", extra={"path": path})
        return None


def _outcome(
    x: ArchiveInput, release: Release, undo: Release | None, before: ArchivedOutcome | None
) -> ArchivedOutcome:
    """Return the outcome of a release by the service's records; a caller adds only the watch's evidence."""
    record = record_of(release, x.outcome)
    return ArchivedOutcome(
        outcome=x.outcome,
        verdict=(record and record.verdict) or (before and before.verdict),
        reason=record.reason if record else release.reason,
        approvers=(undo or release).approvers,
        watch_evidence=x.watch_evidence or (before and before.watch_evidence),
    )


def _suffix(data: bytes) -> str:
    if detect(data) == "sigstore":
        return ".sigstore.json"
    return ".asc" if data.lstrip().startswith(b"-----") else ".sig"


def _json(model: Model) -> bytes:
    return (model.model_dump_json(indent=1) + "\n").encode()
