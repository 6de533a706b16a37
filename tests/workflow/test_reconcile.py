"""Reconciliation: what is safe is mended, and everything else is named. (What dead runs leave: test_dead_runs.py.)

In an environment of its own, where it runs every three seconds and judges runs that have been closed for three.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import asyncpg
import httpx
import pytest
import redis.asyncio
from dulwich.object_store import commit_tree_changes, tree_lookup_path
from dulwich.objects import Blob, Commit
from dulwich.repo import Repo
from prometheus_client.parser import text_string_to_metric_families
from slack_sdk import WebClient
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import PollWorkflowTaskQueueRequest, RespondWorkflowTaskFailedRequest
from temporalio.client import Client, ScheduleOverlapPolicy
from temporalio.service import RPCError, RPCStatusCode

from constitution.api import LeaseRequest, LoadRequest, WorkflowRef
from constitution.messages import Status
from constitution.release import CurrentConstitution, Kind
from deploy.embedded.development import ENVIRONMENT
from deploy.embedded.stack_directory import CHECKOUT
from tests.helpers import eventually
from tests.workflow import outcomes
from tests.workflow.conftest import at_rest
from tests.workflow.reconciling import EVERY, all_well, doctor, finds, reconciled
from tests.world.author import Proposal
from tests.world.environment import LEAF, SOON, Environments, RunningEnvironment, state_of

pytestmark = pytest.mark.timeout(300)

LOG = "docs/SomaAgentHub_Security.md"


@pytest.fixture
async def env(minded: Environments, request: pytest.FixtureRequest) -> AsyncIterator[RunningEnvironment]:
    """A reconciled environment, at rest before and after each test."""
    async for env in at_rest(minded, request):
        yield env


# --- what is mended


@pytest.mark.parametrize(
    "value", [pytest.param(None, marks=pytest.mark.slow), b'{"generation": 99}'], ids=["deleted", "forged"]
)
async def test_the_redis_value_comes_back(
    env: RunningEnvironment, live: CurrentConstitution, value: bytes | None
) -> None:
    key = env.names.redis_current()
    async with redis.asyncio.from_url(env.settings["REDIS_URL"]) as client:
        await (client.delete(key) if value is None else client.set(key, value))

    async def restored() -> bool:
        try:
            return await env.reads.redis() == (live.generation, live.checksum)
        except KeyError:  # still the forged one
            return False

    await eventually(restored, SOON)


async def test_a_row_and_a_file_that_were_deleted_from_the_archive_come_back(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    await env.rest()  # the guard has archived the histories
    rows = await asyncio.to_thread(env.reads.change_log, live.generation)
    assert len(rows) == 1
    folder = f"docs/legal/constitution/{live.version}-{live.generation}"
    told = f"archive-missing: generation {live.generation},"
    before = len(await asyncio.to_thread(reconciled, env, told))
    await asyncio.to_thread(vandalise, env, f"{folder}/document.json", None, row=rows[0].split(" | ")[2])
    assert await asyncio.to_thread(env.reads.change_log, live.generation) == []

    async def restored() -> bool:
        again = await asyncio.to_thread(env.reads.change_log, live.generation)
        return again == rows and f"{folder}/document.json" in await asyncio.to_thread(env.reads.archived)

    await eventually(restored, SOON)
    await all_well(env)
    assert len(await asyncio.to_thread(reconciled, env, told)) == before + 1


async def test_a_file_that_was_altered_in_the_archive_is_named_and_left_alone(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    folder = f"docs/legal/constitution/{live.version}-{live.generation}"
    path = f"{folder}/change-request.json"
    await env.rest()  # the guard has archived the histories
    before = await asyncio.to_thread(vandalise, env, path, b"{}")
    finding = await finds(env, "archive-altered", folder)
    assert "change-request.json" in finding["message"]
    await asyncio.to_thread(vandalise, env, path, before)
    await all_well(env)


async def test_an_outcome_that_was_told_twice_is_told_once(env: RunningEnvironment, live: CurrentConstitution) -> None:
    told = await asyncio.to_thread(env.reads.told)
    key = next(key for key in told if key.endswith("/completed"))
    tell_again(env, key)
    events = await eventually(lambda: reconciled(env, f"announced-twice: {key}"), SOON)
    assert [event["api"]["operation"] for event in events] == ["reconcile.repaired"]
    assert (await asyncio.to_thread(env.reads.told))[key] == told[key]
    assert live.checksum


# --- what is named


@pytest.mark.slow
async def test_a_target_that_is_away_or_behind_is_named_once_in_the_audit(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    await all_well(env)
    await env.kill(LEAF)
    finding = await finds(env, "target-unreachable", LEAF)
    assert finding["where"] == LEAF
    async with without_service(env, LEAF):
        behind = await finds(env, "target-behind", LEAF)
        assert f"not generation {live.generation}" in behind["message"]
        events = await eventually(lambda: reconciled(env, f"target-behind: {LEAF}"), SOON)
        rounds = await reports(env)

        async def looked_again() -> bool:
            return len(await reports(env)) >= len(rounds) + 2

        await eventually(looked_again, SOON)
        assert reconciled(env, f"target-behind: {LEAF}") == events
        assert len(events) == 1
    await env.restart(LEAF)
    await all_well(env)


@pytest.mark.slow
async def test_a_release_that_no_run_made_is_named_and_not_touched(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    proposal = await env.author.propose()
    handle = await env.update(proposal, dry_run=True)  # for the gate's evidence
    await env.end(handle)
    generation = await load_by_hand(env, proposal, await env.status(handle), live.generation)
    finding = await finds(env, "out-of-band", f"generation {generation}")
    assert f"--bad-generation {generation}" in finding["command"]
    await finds(env, "unconfirmed", f"generation {generation}")
    current = await env.author.current()
    assert current is not None
    assert current.generation == generation
    key = ("--key", str(env.files.directory / "keys" / "olga.tsk"), "--yes", "--wait", "--timeout", "50")
    code, _, err = await env.constitution(
        "rollback", "--bad-generation", str(generation), "--reason", "out of band", *key
    )
    assert code == 0, err


@pytest.mark.slow
async def test_an_approval_that_expires_while_its_run_waits_is_named(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    proposal = await env.author.propose()
    handle = await env.update(proposal)
    status = await env.until_step(handle, "board", "waiting")
    soon = datetime.now(UTC) + timedelta(seconds=4)
    envelope = env.author.approval("alva", proposal, status, expires_at=soon)
    await handle.execute_update("decide", {"approval": envelope.model_dump(mode="json")})
    finding = await finds(env, "approval-expired", "alva")
    assert handle.id in finding["command"]
    await handle.execute_update("abort", {"reason": "expired"})
    await outcomes.rejected(env, handle, proposal, live, "expired")


@pytest.mark.slow
async def test_a_document_that_will_expire_is_named(env: RunningEnvironment, live: CurrentConstitution) -> None:
    assert live.checksum
    document = await env.author.next_draft(expires_at=datetime.now(UTC) + timedelta(days=6))
    handle, proposal = await env.approved(await env.author.propose(document))
    await outcomes.completed(env, handle, proposal)
    finding = await finds(env, "document-expires", "7 days before")
    assert proposal.version in finding["message"]
    await env.completed()
    await all_well(env)


@pytest.mark.slow
async def test_a_run_that_needs_a_person_is_named(env: RunningEnvironment, live: CurrentConstitution) -> None:
    env.service_wire.cut()
    assert live.document is not None
    handle = await env.update(Proposal(document=live.document.encode(), change_request="CR-nobody"))
    await env.until(handle, lambda status: state_of(status, "request") == "waiting")
    finding = await finds(env, "needs-a-person", handle.id)
    assert handle.id in finding["command"]
    env.service_wire.repair()
    await handle.execute_update("abort", {"reason": "enough"})
    await env.end(handle)


@pytest.mark.slow
async def test_a_siem_that_has_not_taken_the_event_is_named(env: RunningEnvironment, live: CurrentConstitution) -> None:
    async with env.paused("siem-forwarder"):
        handle, proposal = await env.approved()
        await env.until_step(handle, "archive")
        finding = await finds(env, "siem-behind", f"generation {live.generation + 1}")
        assert "siem" in finding["command"]
    await outcomes.completed(env, handle, proposal)
    await all_well(env)


@pytest.mark.slow
async def test_an_event_that_the_relay_cannot_deliver_is_named(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    """The relay's own row is locked by somebody else's transaction: it can neither keep its right nor hand it over."""
    owner = await asyncpg.connect(env.settings["DATABASE_MIGRATION_URL"])
    try:
        async with owner.transaction():
            address = f"http://127.0.0.1:{env.port('constitution-service')}/metrics"
            assert await metric(address, "constitution_relay_leader") == 1
            await owner.execute("LOCK TABLE relay_leases IN ACCESS EXCLUSIVE MODE")

            async def gave_up() -> bool:
                return await metric(address, "constitution_relay_leader") == 0

            await eventually(gave_up, SOON)
            handle, proposal = await env.approved()
            status = await env.until(handle, lambda status: status.generation is not None)
            assert status.generation == live.generation + 1
            finding = await finds(env, "undelivered", f"generation {status.generation}")
            assert "constitution-service" in finding["command"]
    finally:
        await owner.close()
    await outcomes.completed(env, handle, proposal)
    await all_well(env)


@pytest.mark.slow
async def test_what_is_found_and_mended_is_in_the_worker_s_metrics(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    await all_well(env)
    worker = env.settings["WORKER_METRICS_URL"]
    named = {"environment": ENVIRONMENT}
    repairs = "constitution_repairs_total"
    mended = await metric(worker, repairs, code="announced-twice", **named)
    tell_again(env, next(key for key in await asyncio.to_thread(env.reads.told) if key.endswith("/completed")))
    await env.kill(LEAF)

    async def counted() -> bool:
        assert await metric(worker, "constitution_findings", code="target-unreachable", **named) == 1
        assert await metric(worker, "constitution_drifting_targets", **named) == 1
        assert await metric(worker, repairs, code="announced-twice", **named) == mended + 1
        return True

    await eventually(counted, SOON)
    assert abs(await metric(worker, "constitution_reconciled_seconds", **named) - datetime.now(UTC).timestamp()) < 60
    await env.restart(LEAF)

    async def over() -> bool:
        findings = await metric(worker, "constitution_findings", **named)
        return findings == 0 == await metric(worker, "constitution_drifting_targets", **named)

    await eventually(over, SOON)
    assert live.checksum


@pytest.mark.usefixtures("live")
@pytest.mark.slow
async def test_a_dead_target_is_named_also_where_nothing_is_old_enough_to_compare_with(env: RunningEnvironment) -> None:
    await all_well(env)
    young = ("--closed-seconds", "86400")  # every release is younger: nothing to compare targets with
    code, report = await doctor(env, *young)
    assert (code, report["findings"]) == (0, [])
    assert any(LEAF in what for what in report["unchecked"]), report
    await env.kill(LEAF)
    code, report = await doctor(env, *young)
    assert code == 1
    assert [(f["code"], f["where"]) for f in report["findings"]] == [("target-unreachable", LEAF)]
    await env.restart(LEAF)
    await all_well(env)


@pytest.mark.usefixtures("live")
@pytest.mark.slow
async def test_a_worker_of_another_deployment_on_the_queue_is_named(env: RunningEnvironment) -> None:
    await all_well(env)
    foreign = "elsewhere/1#000000000000@1.0"
    queue = TaskQueue(name=env.names.task_queue())
    poll = PollWorkflowTaskQueueRequest(namespace=env.client.namespace, task_queue=queue, identity=foreign)
    try:
        task = await env.client.workflow_service.poll_workflow_task_queue(poll, timeout=timedelta(seconds=5))
    except RPCError as error:  # nobody had work for it, which is what a poll without a task ends with
        if error.status not in {RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED}:
            raise
    else:
        if task.task_token:  # it took a step from the environment's own worker: give it back
            env.excuse(task.workflow_execution.run_id)
            await env.client.workflow_service.respond_workflow_task_failed(
                RespondWorkflowTaskFailedRequest(
                    namespace=env.client.namespace, task_token=task.task_token, identity=foreign
                )
            )
    finding = await finds(env, "workers-of-two-stacks", "task queue")
    assert foreign in finding["message"]


# --- who looks


@pytest.mark.slow
async def test_the_doctor_without_a_worker_says_so(env: RunningEnvironment, live: CurrentConstitution) -> None:
    assert live.checksum
    await env.kill("worker")
    code, report = await doctor(env, "--timeout", "2")
    assert code == 1
    said = [finding["where"] for finding in report["findings"]]
    assert said[0] == "Temporal and worker"
    assert set(said[1:]) <= {"task queue"}, "where tasks have waited meanwhile"
    await env.restart("worker")
    await all_well(env)


@pytest.mark.slow
async def test_there_is_one_schedule_and_a_paused_one_stays_paused(
    env: RunningEnvironment, temporal_client: Client
) -> None:
    schedule = temporal_client.get_schedule_handle(env.names.reconcile_id(ENVIRONMENT))
    said = (await schedule.describe()).schedule
    assert said.policy.overlap is ScheduleOverlapPolicy.SKIP
    assert [interval.every for interval in said.spec.intervals] == [timedelta(seconds=EVERY)]
    await schedule.pause(note="the test")
    await env.restart("worker")
    assert (await schedule.describe()).schedule.state.paused
    await schedule.unpause()


# --- means


async def metric(address: str, name: str, **labels: str) -> float:
    """The sum of a metric's samples with these labels; 0 while there is none."""
    async with httpx.AsyncClient(timeout=10, trust_env=False) as client:
        text = (await client.get(address)).raise_for_status().text
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples if s.name == name]
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


def tell_again(env: RunningEnvironment, key: str) -> None:
    """Post the message of an outcome once more."""
    slack = WebClient(env.settings["SLACK_BOT_TOKEN"], base_url=env.settings["SLACK_API_URL"])
    channels = slack.conversations_list(limit=200)["channels"]
    slack.chat_postMessage(
        channel=next(c["id"] for c in channels if c["name"] == env.channel),
        text="again",
        metadata={"event_type": "constitution_outcome", "event_payload": {"key": key}},
    )


async def reports(env: RunningEnvironment) -> list[str]:
    """The run ids of reconciliation's closed runs."""
    query = f"WorkflowType = 'ConstitutionReconcile' AND TaskQueue = '{env.names.task_queue()}'"
    closed = f"{query} AND ExecutionStatus = 'Completed'"
    return [run.run_id async for run in env.client.list_workflows(closed)]


async def load_by_hand(env: RunningEnvironment, proposal: Proposal, status: Status, expected: int) -> int:
    """Load a release as somebody does who has the board's signatures, but no run."""
    update_id = "11111111-2222-4333-8444-555555555555"
    assert status.plan is not None
    plan = status.plan.model_copy(update={"update_id": update_id})
    workflow_id = "by-hand/of-the-test"
    lease = await env.service.acquire_lease(
        LeaseRequest(update_id=update_id, kind=Kind.UPDATE, workflow_id=workflow_id), f"{ENVIRONMENT}/{update_id}/l"
    )
    loaded = await env.service.load(
        LoadRequest(
            update_id=update_id,
            kind=Kind.UPDATE,
            checksum=proposal.checksum,
            rings=("default",),
            expected_generation=expected,
            fencing_token=lease.fencing_token,
            change_request=proposal.change_request,
            approvals=tuple(env.author.approval(person, proposal, status, plan=plan) for person in ("alva", "bruno")),
            test_evidence=status.evidence,
            reason="out of band",
            workflow=WorkflowRef(workflow_id=workflow_id, run_id=update_id),
        ),
        f"{ENVIRONMENT}/{update_id}/load",
    )
    return loaded.generation


def vandalise(env: RunningEnvironment, path: str, content: bytes | None, row: str | None = None) -> bytes:
    """Commit to the archive what nobody should: change or delete a file, and a row of the change log."""
    with Repo(env.settings["ARCHIVE_REPOSITORY"]) as repo:
        head = repo.head()
        tree = repo[repo[head].tree]  # type: ignore[attr-defined]

        def read(name: str) -> bytes:
            return repo[tree_lookup_path(repo.__getitem__, tree.id, name.encode())[1]].as_raw_string()

        before = read(path)
        wanted = {path: content}
        if row is not None:
            lines = read(LOG).decode().splitlines(keepends=True)
            wanted[LOG] = "".join(line for line in lines if row not in line).encode()
        changes: list[tuple[bytes, int | None, bytes | None]] = []
        for name, data in wanted.items():
            blob = None if data is None else Blob.from_string(data)
            if blob is not None:
                repo.object_store.add_object(blob)
            changes.append((name.encode(), None if blob is None else 0o100644, None if blob is None else blob.id))
        commit = Commit()
        commit.tree = commit_tree_changes(repo.object_store, tree, changes)  # type: ignore[arg-type]
        commit.parents = [head]
        commit.author = commit.committer = b"A Stranger <a@b>"
        commit.author_time = commit.commit_time = int(time.time())
        commit.author_timezone = commit.commit_timezone = 0
        commit.message = b"vandalise"
        repo.object_store.add_object(commit)
        assert repo.refs.set_if_equals(b"HEAD", head, commit.id)  # type: ignore[arg-type]
    return before


@asynccontextmanager
async def without_service(env: RunningEnvironment, target: str) -> AsyncIterator[None]:
    """Run a target on its own port that reaches constitution-service no more: it has come back, and knows nothing."""
    ports = json.loads((env.directory / "run" / "state.json").read_text())["ports"]
    settings = env.settings | {
        "HOST": "127.0.0.1",
        "PORT": str(ports[target]),
        "TARGET_ID": target,
        "CONSTITUTION_SERVICE_URL": "http://127.0.0.1:9",
        "POLICY_ENGINE_URL": env.settings["POLICY_ENGINE_1_URL"],
        "CLIENT_KEY_FILE": str(env.files.directory / "keys" / "target.jwk"),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.orchestrator",
        env={"PATH": os.environ["PATH"], **settings},
        cwd=CHECKOUT,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.kill()
        await process.wait()
