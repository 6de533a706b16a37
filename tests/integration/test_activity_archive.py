"""The record of a release: everything about it in one folder, its row once, the SIEM's position, closed histories."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import Consumer
from pydantic import ValidationError
from temporalio.client import Client, WorkflowHistory
from temporalio.common import SearchAttributePair, TypedSearchAttributes
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner, Worker

from activities.archive import ArchiveInput, HistoriesInput, RejectionInput, SiemInput
from activities.blocks import when
from activities.reconcile import archive_checks
from activities.reconcile.archive_checks import ArchiveLook
from activities.runs import RunRef
from adapters.archive import CHANGE_LOG
from adapters.runs import TemporalSearch
from adapters.slack import SlackChannel
from constitution.api import LoadResult
from constitution.archived_outcome import ArchivedOutcome
from constitution.checksum import checksum_of
from constitution.names import Names
from constitution.release import DeliveredEvent, Kind, Standing, Verdict
from tests.integration.activity_support import Records, WaitsToBeTold, refused, run
from tests.world.author import Author
from tests.world.files import ENVIRONMENT
from workflows.status import UPDATE_ID


def outcome(result: LoadResult, **changes: object) -> ArchiveInput:
    return ArchiveInput(
        environment=ENVIRONMENT,
        generation=result.generation,
        outcome="completed",
    ).model_copy(update=changes)


async def test_a_release_is_archived_whole_and_once(records: Records, author: Author) -> None:
    document = author.draft("1.0.0", summary="Spends <script> | http://evil.example")
    request = await author.prepared(document, expected_generation=0)
    lease = await author.lease(request.update_id)
    result = await author.load(request.model_copy(update={"fencing_token": lease.fencing_token}))
    await author.delivered(1)
    failure = await refused(records.archive.archive_release, outcome(result))
    assert (failure.type, failure.non_retryable) == ("conflict", True), "nothing has confirmed it"
    await author.stand(1, Standing.CONFIRMED, lease)
    failure = await refused(records.archive.archive_release, outcome(result, outcome="rolled_back"))
    assert failure.type == "conflict", "nothing has undone it"
    for other in ("restored", "withdrawn"):
        failure = await refused(records.archive.archive_release, outcome(result, outcome=other))
        assert failure.type == "conflict", "it undoes nothing"
    with pytest.raises(ValidationError, match="outcome"):
        ArchiveInput(environment=ENVIRONMENT, generation=1, outcome="reviewed by the board")
    watch = await author.anomaly(1, verdict=Verdict.OK)
    for digest in (await author.assessor.put_blob(b'{"e":1}'), await author.anomaly(1, update_id=str(uuid4()))):
        left_out = await run(records.archive.archive_release, outcome(result, watch_evidence=digest))
        file = f"{left_out.folder}/evidence/watch-{digest.removeprefix('sha256:')[:12]}.json"
        assert await records.repository.read(file) is None, "it is no evidence of this release"
    x = outcome(result, watch_evidence=watch)
    archived = await run(records.archive.archive_release, x)
    assert archived.folder == "docs/legal/constitution/1.0.0-1"
    assert await run(records.archive.archive_release, x) == archived
    manifest = json.loads(await records.repository.read(f"{archived.folder}/manifest.json") or b"{}")["files"]
    assert set(manifest) == {
        "README.md",
        "approvals/01.dsse.json",
        "approvals/02.dsse.json",
        "audit-head-completed.json",
        "change-request.json",
        "document.json",
        "event-01.json",
        "event-02.json",
        "evidence/01.junit.xml",
        "evidence/02.junit.xml",
        "evidence/evidence.json",
        f"evidence/watch-{watch.removeprefix('sha256:')[:12]}.json",
        "outcome-completed.json",
        "release-statement.json",
        "signatures/01.sig",
    }
    for name, checksum in manifest.items():
        assert checksum_of(await records.repository.read(f"{archived.folder}/{name}") or b"") == checksum
    assert await records.repository.read(f"{archived.folder}/document.json") == document
    readme = (await records.repository.read(f"{archived.folder}/README.md") or b"").decode()
    assert readme.startswith("> Pledge: ")
    assert "evil.example" not in readme
    undo = await author.lease(str(uuid4()), Kind.ROLLBACK)
    orders = await author.orders(1, "withdraw")
    await author.stand(result.generation, Standing.WITHDRAWN, undo, orders=orders)
    undone = await run(records.archive.archive_release, outcome(result, outcome="rolled_back"))
    assert undone.commit != archived.commit
    assert await run(records.archive.archive_release, x) == undone, "no commit was made: this one holds the folder"
    log = (await records.repository.read(CHANGE_LOG) or b"").decode()
    rows = [line for line in log.splitlines() if line.startswith("| 1.0.0")]
    assert [row.split("|")[4].strip() for row in rows] == ["completed", "rolled back"]
    assert "alva, bruno" in rows[0]
    told = await author.worker.release(1)
    assert [row.split("|")[5].strip() for row in rows] == [told.change_request] * 2
    dates = [row.split("|")[7].split("<!--")[0].strip() for row in rows]
    assert dates == [when(stood.recorded_at) for stood in told.standings], "each outcome has its own date"


async def test_a_later_call_that_knows_less_takes_nothing_from_an_outcome(records: Records, author: Author) -> None:
    result = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    await author.delivered(1)
    watch = await author.anomaly(1, verdict=Verdict.OK)
    archived = await run(records.archive.archive_release, outcome(result, watch_evidence=watch))
    x = ArchiveInput(environment=ENVIRONMENT, generation=1, outcome="completed")
    again = await run(records.archive.archive_release, x)
    said = await _said(records, archived.folder)
    (standing,) = (await author.worker.release(1)).standings
    assert (said.reason, said.verdict) == (standing.reason, standing.verdict), "one reason, in every record"
    assert (said.approvers, said.watch_evidence) == (("alva", "bruno"), watch)
    assert await run(records.archive.archive_release, x) == again, "no commit was made"


async def test_what_nobody_has_archived_before_is_told_by_the_release(records: Records, author: Author) -> None:
    result = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    await author.delivered(1)
    undo = await author.lease(str(uuid4()), Kind.ROLLBACK)
    orders = await author.orders(1, "poison")
    await author.stand(result.generation, Standing.POISONED, undo, attested=False, orders=orders)
    folder = "docs/legal/constitution/1.0.0-1"
    torn = {f"{folder}/outcome-completed.json": b"{"}
    await records.repository.commit(torn, change_log_row=None, message="torn")
    for name, verdict in (("completed", Verdict.NOT_APPLICABLE), ("rolled_back", None)):
        x = ArchiveInput(environment=ENVIRONMENT, generation=1, outcome=name)
        assert (await run(records.archive.archive_release, x)).folder == folder
        said = await _said(records, folder, name)
        assert (said.verdict, said.approvers, said.watch_evidence) == (verdict, ("alva", "bruno"), None)


async def test_a_denial_is_archived_once_with_all_that_was_signed(records: Records, author: Author) -> None:
    document = author.draft("1.0.0")
    request = await author.prepared(document, expected_generation=0)
    x = RejectionInput(
        environment=ENVIRONMENT,
        update_id=request.update_id,
        what="update",
        version="1.0.0",
        checksum=checksum_of(document),
        change_request=request.change_request,
        denied_by="bruno",
        reason="bruno denied: it | pays <b>everyone</b>",
        at=datetime(2026, 11, 22, 10, tzinfo=UTC),
        decisions=(*request.approvals, author.denial(request.change_request or "", checksum_of(document), "bruno")),
        workflow_id="w",
        run_id="r",
    )
    other = await author.prepared(author.draft("1.0.1"), expected_generation=0)
    assert request.change_request != other.change_request
    foreign: tuple[dict[str, Any], ...] = (
        {"decisions": request.approvals},
        {"denied_by": "alva"},
        {"checksum": None},
        {"version": "9.9.9"},
        {"change_request": other.change_request},
        {"update_id": other.update_id},
        {"what": "rollback"},
    )
    for changes in foreign:
        failure = await refused(records.archive.archive_denial, x.model_copy(update=changes))
        assert (failure.type, failure.non_retryable) == ("not-approved", True)
    archived = await run(records.archive.archive_denial, x)
    assert await run(records.archive.archive_denial, x) == archived
    manifest = json.loads(await records.repository.read(f"{archived.folder}/manifest.json") or b"{}")["files"]
    signed = {f"approvals/{n:02d}.dsse.json" for n in range(1, len(x.decisions) + 1)}
    assert set(manifest) == {"README.md", "change-request.json", "outcome-rejected.json", *signed}
    log = (await records.repository.read(CHANGE_LOG) or b"").decode()
    (row,) = [[cell.strip() for cell in line.split("|")[1:-1]] for line in log.splitlines() if "rejected" in line]
    assert row[:6] == ["1.0.0", "—", x.checksum, "rejected", x.change_request, "bruno denied"]
    assert row[6].startswith("2026-11-22 10:00:00 UTC")


async def _said(records: Records, folder: str, name: str = "completed") -> ArchivedOutcome:
    """What the archive says of an outcome; the manifest says the same."""
    data = await records.repository.read(f"{folder}/outcome-{name}.json") or b""
    manifest = json.loads(await records.repository.read(f"{folder}/manifest.json") or b"{}")["files"]
    assert manifest[f"outcome-{name}.json"] == checksum_of(data)
    return ArchivedOutcome.model_validate_json(data)


async def test_a_withdrawal_is_archived_without_a_document(records: Records, author: Author) -> None:
    result, lease = await author.publish(author.draft("1.0.0"), expected_generation=0)
    fence = await author.lease(lease.update_id, Kind.ROLLBACK)
    withdrawn = await author.load(author.undoing(fence, result.generation, None), step="restore")
    await author.delivered(withdrawn.generation)
    archived = await run(records.archive.archive_release, outcome(withdrawn, outcome="withdrawn"))
    assert archived.folder == "docs/legal/constitution/withdrawn-2"
    manifest = json.loads(await records.repository.read(f"{archived.folder}/manifest.json") or b"{}")["files"]
    assert "document.json" not in manifest
    assert "release-statement.json" in manifest


async def test_the_siem_is_confirmed_only_past_the_event(
    records: Records, author: Author, names: Names, kafka_configuration: dict[str, str]
) -> None:
    result, _ = await author.publish(author.draft("1.0.0"), expected_generation=0)
    release = await author.delivered(result.generation)
    question = SiemInput(environment=ENVIRONMENT, events=release.delivery.events)
    waiting = asyncio.create_task(run(records.archive.confirm_siem, question))
    topic = names.topic_updated()
    consumer = Consumer(
        {**kafka_configuration, "group.id": names.group("siem"), "auto.offset.reset": "earliest",
         "enable.auto.commit": False, "isolation.level": "read_committed"}
    )  # fmt: skip
    try:
        consumer.subscribe([topic])
        taken: set[str] = set()
        while len(taken) < 2:
            message = await asyncio.to_thread(consumer.poll, 20)
            assert message is not None
            assert message.error() is None
            key = message.key()
            assert key is not None
            taken.add(key.decode())
            assert not waiting.done(), "nothing is committed yet"
        await asyncio.to_thread(consumer.commit, asynchronous=False)
        said = await asyncio.wait_for(waiting, 20)
    finally:
        consumer.close()
    assert said.group == "siem"
    assert said.positions["0"] > max(event.offset for event in release.delivery.events)
    assert await run(records.archive.confirm_siem, question) == said


async def test_a_siem_that_never_takes_the_event_is_not_yet(records: Records) -> None:
    events = (DeliveredEvent(tenant="global", event_id="x:global", partition=0, offset=0),)
    failure = await refused(
        records.archive.confirm_siem, SiemInput(environment=ENVIRONMENT, events=events, patience_seconds=0)
    )
    assert (failure.type, failure.non_retryable) == ("not-yet", False)
    assert "partition 0 at 0, event at 0" in failure.message


async def test_only_closed_histories_are_archived_and_they_replay(
    author: Author, records: Records, temporal_client: Client, namespace: str
) -> None:
    await author.publish(author.draft("1.0.0"), expected_generation=0)
    release = await author.worker.release(1)
    carries = TypedSearchAttributes([SearchAttributePair(UPDATE_ID, release.update_id)])
    async with Worker(
        temporal_client, task_queue=namespace, workflows=[WaitsToBeTold], workflow_runner=UnsandboxedWorkflowRunner()
    ):
        handle = await temporal_client.start_workflow(
            WaitsToBeTold.run, id=f"{namespace}/open", task_queue=namespace, search_attributes=carries
        )
        ref = RunRef(workflow_id=handle.id, run_id=handle.first_execution_run_id)
        foreign = await temporal_client.start_workflow(
            WaitsToBeTold.run, id=f"{namespace}/foreign", task_queue=namespace
        )
        other = RunRef(workflow_id=foreign.id, run_id=foreign.first_execution_run_id)
        asked = HistoriesInput(environment=ENVIRONMENT, generation=1, runs=(other, ref))
        failure = await refused(records.archive.archive_histories, asked)
        assert (failure.type, failure.non_retryable) == ("not-yet", False)
        state = await run(records.runs.describe_run, ref)
        assert (state.status, state.closed, state.workflow_type) == ("RUNNING", False, "WaitsToBeTold")
        waiting = asyncio.create_task(run(records.runs.await_closed, ref))
        await handle.signal(WaitsToBeTold.tell)
        await foreign.signal(WaitsToBeTold.tell)
        await foreign.result()
        closed = await asyncio.wait_for(waiting, 20)
        assert (closed.status, closed.closed) == ("COMPLETED", True)
    archived = await run(records.archive.archive_histories, asked)
    assert await run(records.archive.archive_histories, asked) == archived
    failure = await refused(records.archive.archive_histories, asked.model_copy(update={"runs": (other,)}))
    assert (failure.type, failure.non_retryable) == ("forbidden", True)
    name = f"{archived.folder}/histories/WaitsToBeTold-{closed.run_id}.json"
    assert [path for path in await records.repository.paths("docs") if "/histories/" in path] == [name]
    history = await records.repository.read(name)
    assert history is not None
    replayer = Replayer(workflows=[WaitsToBeTold], workflow_runner=UnsandboxedWorkflowRunner())
    await replayer.replay_workflow(WorkflowHistory.from_json(handle.id, history.decode()))


async def test_a_run_that_nobody_knows_is_not_found(records: Records, namespace: str) -> None:
    failure = await refused(records.runs.describe_run, RunRef(workflow_id=f"{namespace}/never"))
    assert (failure.type, failure.non_retryable) == ("not-found", True)


class ArchivedMeanwhile(TemporalSearch):
    """Answers late: before it does, the run has archived its outcome, and closed."""

    def __init__(self, client: Client, then: Callable[[], Awaitable[object]]) -> None:
        super().__init__(client, "nobody")
        self._then = then

    async def carrying(self, update_id: str) -> list[dict[str, Any]]:
        await self._then()
        return await super().carrying(update_id)


async def test_a_standing_that_nothing_undid_is_a_finding_and_no_row(
    *, records: Records, author: Author, temporal_client: Client, slack_settings: dict[str, str]
) -> None:
    result = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    await author.delivered(1)
    await run(records.archive.archive_release, outcome(result))
    undo = await author.lease(str(uuid4()), Kind.ROLLBACK)
    # Nothing undid it: the board has said so.
    await author.stand(result.generation, Standing.POISONED, undo, orders=await author.orders(1, "poison"))
    look = archive_checks.ArchiveChecks(
        service=author.worker,
        repository=records.repository,
        announcements=SlackChannel(slack_settings["SLACK_BOT_TOKEN"], slack_settings["SLACK_API_URL"]),
        search=TemporalSearch(temporal_client, "nobody"),
        config=records.config,
    )
    asked = ArchiveLook(environment=ENVIRONMENT, closed_seconds=0)
    found = await run(look.check_archive, asked)
    assert found.missing == ()
    assert [(finding.code, finding.where) for finding in found.findings] == [("standing-without-undo", "generation 1")]
    undoing = await author.load(author.undoing(undo, result.generation, None), step="restore")
    await author.delivered(undoing.generation)
    found = await run(look.check_archive, asked)
    assert [(missing.generation, missing.outcome) for missing in found.missing] == [(1, "rolled_back")]
    assert found.findings == ()


async def test_an_outcome_that_is_archived_while_one_looks_is_not_missing(
    *, records: Records, author: Author, temporal_client: Client, slack_settings: dict[str, str]
) -> None:
    result = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    await author.delivered(1)

    async def nothing() -> None:
        """The run is dead."""

    async def archived() -> None:
        await run(records.archive.archive_release, outcome(result))

    async def found(then: Callable[[], Awaitable[object]]) -> list[int]:
        search = ArchivedMeanwhile(temporal_client, then)
        channel = SlackChannel(slack_settings["SLACK_BOT_TOKEN"], slack_settings["SLACK_API_URL"])
        look = archive_checks.ArchiveChecks(
            service=author.worker,
            repository=records.repository,
            announcements=channel,
            search=search,
            config=records.config,
        )
        asked = ArchiveLook(environment=ENVIRONMENT, closed_seconds=0)
        return [missing.generation for missing in (await run(look.check_archive, asked)).missing]

    assert await found(nothing) == [1]
    assert await found(archived) == []
