"""Lease, load and proof, against the real service, Postgres, Redis and Kafka."""

import json
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]
from redis.asyncio import Redis
from temporalio.exceptions import ApplicationError

from activities.audit import Audit
from activities.plan import PlanInput
from activities.publish import (
    LeaseInput,
    LoadInput,
    Proof,
    ProveInput,
    Publish,
    Published,
    ReleaseLeaseInput,
)
from activities.restore import FenceInput, Restore, RestoreInput
from activities.update_plan import UpdatePlan
from adapters.event_log import MAX_FOUND, KafkaEventLog
from constitution.api import AuditEvent, Lease, StandingRequest, WorkflowRef
from constitution.errors import UnavailableError
from constitution.messages import RollbackRequest
from constitution.names import Names
from constitution.release import Kind, Previous, Standing
from constitution_client.service import ConstitutionServiceClient
from tests.helpers import eventually
from tests.integration.activity_support import make_config, refused, run, update_plan_of
from tests.world.author import Author
from tests.world.documents import following
from tests.world.files import ENVIRONMENT, EnvironmentFiles
from tests.world.processes import Service
from tests.world.readings import Topics
from tests.world.wire import Wire


@pytest.fixture
def restore(author: Author, environment_files: EnvironmentFiles, tmp_path: Path) -> Restore:
    return Restore(service=author.worker, config=make_config(environment_files, tmp_path))


async def prepared(author: Author, document: bytes, **changes: object) -> LoadInput:
    checksum = await author.push(document)
    change_request = await author.ask(checksum)
    evidence = await author.evidence(document, change_request)
    update = update_plan_of(document, change_request, **changes)
    return LoadInput(
        update=update,
        evidence=evidence,
        envelopes=author.approvals(document, change_request=change_request, evidence=evidence, plan=update.plan),
        fencing_token=0,
        expected_generation=update.expected_generation,
    )


async def leased(publish: Publish, update: UpdatePlan) -> Lease:
    return await run(
        publish.acquire_lease,
        LeaseInput(environment=ENVIRONMENT, update_id=update.update_id, kind=Kind.UPDATE, workflow_id="test"),
    )


async def released(publish: Publish, author: Author, document: bytes, **changes: object) -> tuple[LoadInput, Published]:
    load = await prepared(author, document, **changes)
    lease = await leased(publish, load.update)
    load = load.model_copy(update={"fencing_token": lease.fencing_token})
    return load, await run(publish.load_release, load)


def to_prove(published: Published) -> ProveInput:
    return ProveInput(
        environment=ENVIRONMENT,
        generation=published.generation,
        checksum=published.checksum,
        event_id=published.event_id,
        rings=("default",),
        effective_at=published.effective_at,
    )


async def proved(publish: Publish, published: Published) -> Proof:
    """Ask for the proof as a run does: again while a place has not shown the release yet.

    Kafka's coordinator answers a commit when it is decided, and then ends the transaction in each partition (KIP-98):
    a reader of committed records sees an event a moment later than the service knows it as delivered.
    """

    async def there() -> Proof | None:
        try:
            return await run(publish.prove_published, to_prove(published))
        except ApplicationError as error:
            if error.type != "not-yet":
                raise
            return None

    proof = await eventually(there)
    assert proof is not None
    return proof


async def test_a_release_is_proved_in_all_three_places_and_twice_the_same(publish: Publish, author: Author) -> None:
    load, published = await released(publish, author, author.draft("1.0.0"))
    assert await run(publish.load_release, load) == published
    await author.delivered(published.generation)
    proof = await proved(publish, published)
    assert (proof.generation, proof.checksum, proof.repaired) == (1, load.update.checksum, False)
    assert [event.tenant for event in proof.events] == ["global", "acme"]
    assert proof.events[0].event_id == f"{published.event_id}:global"
    assert await run(publish.prove_published, to_prove(published)) == proof


async def test_a_load_whose_answer_was_lost_is_one_release(
    publish: Publish, author: Author, environment_files: EnvironmentFiles, constitution_service: Service, tmp_path: Path
) -> None:
    load = await prepared(author, author.draft("1.0.0"))
    load = load.model_copy(update={"fencing_token": (await leased(publish, load.update)).fencing_token})
    wire = Wire(constitution_service.url)
    with wire.holding("POST", "/v1/constitution/load", answered=True) as lost:
        lost.drop()
        async with ConstitutionServiceClient(wire.url, environment_files.key("worker"), ENVIRONMENT) as service:
            over_wire = Publish(
                service=service,
                ledger=publish._ledger,
                cache=publish._cache,
                events=publish._events,
                config=make_config(environment_files, tmp_path),
            )
            published = await run(over_wire.load_release, load)
        await lost.reached()
    wire.close()
    assert published.generation == 1
    assert len(await author.worker.releases()) == 1


async def test_a_deleted_or_forged_redis_value_is_restored_and_said(
    publish: Publish, author: Author, redis: Redis, names: Names
) -> None:
    _, published = await released(publish, author, author.draft("1.0.0"))
    await author.delivered(published.generation)
    await proved(publish, published)

    async def repaired() -> bool:  # the service's own cache writer may be faster than a proof
        await redis.delete(names.redis_current())
        proof = await run(publish.prove_published, to_prove(published))
        assert proof.repaired == ("had no value" in proof.redis)
        return proof.repaired

    await eventually(repaired)
    true_value = await redis.get(names.redis_current())
    assert isinstance(true_value, bytes)
    forged = true_value.replace(b'"generation":1', b'"generation":9', 1)
    assert "does not verify" in (publish._cache_trouble(to_prove(published), "default", forged) or "")
    assert publish._cache_trouble(to_prove(published), "default", true_value) is None
    await redis.set(names.redis_current(), forged)  # the service's own keeper may be faster than this proof
    assert (await run(publish.prove_published, to_prove(published))).generation == 1
    assert await redis.get(names.redis_current()) == true_value


async def test_what_has_not_happened_is_not_yet_and_what_is_past_is_a_conflict(
    publish: Publish, author: Author
) -> None:
    first, published = await released(publish, author, author.draft("1.0.0"))
    early = to_prove(published).model_copy(update={"generation": 2})
    failure = await refused(publish.prove_published, early)
    assert (failure.type, failure.non_retryable) == ("not-yet", False)
    await author.delivered(1)
    lease = await leased(publish, first.update)
    standing = StandingRequest(
        standing=Standing.CONFIRMED,
        reason="seen",
        update_id=first.update.update_id,
        fencing_token=lease.fencing_token,
    )
    await author.attest(await author.synced(1))
    said = await author.worker.record_standing(1, standing, f"{ENVIRONMENT}/{standing.update_id}/standing-1")
    assert said.standing is Standing.CONFIRMED
    give_back = ReleaseLeaseInput(
        environment=ENVIRONMENT, update_id=first.update.update_id, fencing_token=lease.fencing_token
    )
    await run(publish.release_lease, give_back)
    await run(publish.release_lease, give_back)
    assert await author.worker.lease() is None
    previous = Previous(version="1.0.0", checksum=first.update.checksum)
    second = author.draft("1.1.0", previous)
    await released(publish, author, second, expected_generation=1)
    failure = await refused(publish.prove_published, to_prove(published))
    assert (failure.type, failure.non_retryable) == ("conflict", True)


async def test_a_held_lease_names_its_holder_and_a_rollback_fences_a_late_load(
    publish: Publish, restore: Restore, author: Author
) -> None:
    load = await prepared(author, author.draft("1.0.0"))
    lease = await leased(publish, load.update)
    other = LeaseInput(
        environment=ENVIRONMENT,
        update_id="00000000-0000-0000-0000-000000000001",
        kind=Kind.UPDATE,
        workflow_id="late",
    )
    failure = await refused(publish.acquire_lease, other)
    assert failure.type == "lease-held"
    assert load.update.update_id in failure.message
    fence = FenceInput(environment=ENVIRONMENT, update_id=load.update.update_id, workflow_id="guard")
    fenced = await run(restore.fence_and_look, fence)
    assert (fenced.generation, fenced.confirmed) == (None, None)
    assert await run(restore.fence_and_look, fence) == fenced
    late = load.model_copy(update={"fencing_token": lease.fencing_token})
    failure = await refused(publish.load_release, late)
    assert (failure.type, failure.non_retryable) == ("lease-lost", True)
    assert await author.worker.releases() == []


async def test_an_update_is_undone_as_its_approvals_allow_and_once(
    publish: Publish, restore: Restore, author: Author
) -> None:
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    second = author.draft("1.1.0", following(first))
    load, published = await released(publish, author, second, expected_generation=1)
    fence = FenceInput(environment=ENVIRONMENT, update_id=load.update.update_id, workflow_id="rollback")
    fenced = await run(restore.fence_and_look, fence)
    assert fenced.generation == published.generation == 2
    request = RollbackRequest(reason="it spikes", bad_generation=2, update_id=load.update.update_id)
    ask = PlanInput(environment=ENVIRONMENT, update_id=load.update.update_id, request=request)
    plan = await run(restore.plan_rollback, ask)
    assert (plan.kind, plan.checksum, plan.restore_generation) == (Kind.ROLLBACK, first.checksum, 1)
    assert (plan.needs_quorum, plan.already, plan.standing_for_bad) == (False, None, Standing.WITHDRAWN)
    order = RestoreInput(
        plan=plan, fencing_token=fenced.fencing_token, reason="it spikes", workflow_id="rollback", run_id="run"
    )
    restored = await run(restore.load_restored, order)
    assert (restored.generation, restored.checksum) == (3, first.checksum)
    assert await run(restore.load_restored, order) == restored
    again = await run(restore.plan_rollback, ask)
    assert (again.already, again.checksum) == (3, first.checksum)
    assert await run(restore.load_restored, order.model_copy(update={"plan": again})) == restored
    assert len(await author.worker.releases()) == 3


async def test_a_first_release_is_undone_by_a_withdrawal(publish: Publish, restore: Restore, author: Author) -> None:
    load, _ = await released(publish, author, author.draft("1.0.0"))
    fence = FenceInput(environment=ENVIRONMENT, update_id=load.update.update_id, workflow_id="rollback")
    fenced = await run(restore.fence_and_look, fence)
    request = RollbackRequest(reason="not converged", bad_generation=1, update_id=load.update.update_id)
    ask = PlanInput(environment=ENVIRONMENT, update_id=load.update.update_id, request=request)
    plan = await run(restore.plan_rollback, ask)
    assert (plan.kind, plan.checksum, plan.needs_quorum) == (Kind.WITHDRAW, None, False)
    restored = await run(
        restore.load_restored,
        RestoreInput(
            plan=plan, fencing_token=fenced.fencing_token, reason="not converged", workflow_id="r", run_id="r"
        ),
    )
    await author.delivered(restored.generation)
    proof = await proved(publish, restored)
    assert (proof.generation, proof.checksum) == (2, None)


async def test_a_rollback_by_hand_of_what_nothing_precedes_is_refused(restore: Restore) -> None:
    ask = PlanInput(environment=ENVIRONMENT, update_id="u", request=RollbackRequest(reason="why not"))
    failure = await refused(restore.plan_rollback, ask)
    assert failure.type == "invalid-request"
    assert "nothing has ever been released" in failure.message


async def test_work_of_another_environment_is_refused(publish: Publish) -> None:
    failure = await refused(
        publish.acquire_lease,
        LeaseInput(environment="production", update_id="u", kind=Kind.UPDATE, workflow_id="w"),
    )
    assert (failure.type, failure.non_retryable) == ("invalid-request", True)


async def test_an_event_that_is_recorded_twice_is_one_in_the_audit_stream(author: Author, topics: Topics) -> None:
    event = AuditEvent(
        id="00000000-0000-4000-8000-00000000000a/rejected",
        update_id="00000000-0000-4000-8000-00000000000a",
        workflow=WorkflowRef(workflow_id="w", run_id="r"),
        activity="update.rejected",
        success=False,
        message="not approved",
    )
    audit = Audit(service=author.worker)
    await run(audit.audit, event)
    await run(audit.audit, event)
    later = event.model_copy(update={"id": f"{event.update_id}/later", "message": "the last one"})
    await run(audit.audit, later)

    async def told() -> list[str]:
        said = [json.dumps(record.value) for record in await topics.audit()]
        assert any("the last one" in text for text in said)
        return said

    said = await eventually(told)
    assert len([text for text in said if "not approved" in text]) == 1


async def test_an_error_of_the_topic_is_not_taken_for_an_empty_one(kafka_configuration: dict[str, str]) -> None:
    settings = {name: str(value) for name, value in kafka_configuration.items()}
    never = KafkaEventLog(settings, Names("never-published"))
    assert await never.find_newer(0, datetime(2026, 1, 1, tzinfo=UTC)) == []

    too_long = KafkaEventLog(settings, Names("n" * 250))  # a broker refuses topic names of more than 249 characters
    with pytest.raises(UnavailableError, match="Invalid topic"):
        await too_long.find_newer(0, datetime(2026, 1, 1, tzinfo=UTC))


async def test_whoever_fills_the_topic_fills_no_memory(kafka_configuration: dict[str, str]) -> None:
    settings = {name: str(value) for name, value in kafka_configuration.items()}
    names = Names(f"filled-{uuid4().hex[:8]}")
    topic = names.topic_updated()
    admin = AdminClient(dict(kafka_configuration))
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(timeout=20)
    producer = Producer({**settings, "compression.type": "lz4"})
    value = json.dumps({"tenant": "global", "generation": 5, "padding": "x" * 900_000}).encode()
    for number in range(MAX_FOUND // len(value) + 1):
        producer.produce(topic, value, headers={"ce_id": f"event-{number}".encode()})
        producer.poll(0)
    assert producer.flush(30) == 0
    log = KafkaEventLog(settings, names)
    with pytest.raises(UnavailableError, match=f"more than {MAX_FOUND} bytes"):
        await log.find_newer(0, datetime(2026, 1, 1, tzinfo=UTC))
    assert await log.find_newer(5, datetime(2026, 1, 1, tzinfo=UTC)) == []
