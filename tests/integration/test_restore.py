"""A system is lost and comes back from what is left (docs/backup-and-restore.md); nothing is ever used twice."""

import json
import shutil
from typing import Any
from uuid import uuid4

import pytest

from constitution.errors import ConflictError, UnavailableError
from constitution.release import Kind
from tests.helpers import eventually
from tests.integration.disaster import Disaster, refuses, story
from tests.world.documents import following
from tests.world.files import ENVIRONMENT
from tests.world.readings import Topics


@pytest.mark.slow
@pytest.mark.parametrize(
    "lost",
    [(), ("redis", "kafka"), ("redis", "store"), ("kafka", "store")],
    ids=["nothing-else", "store-is-left", "kafka-is-left", "redis-is-left"],
)
async def test_after_an_older_backup_no_generation_is_given_out_that_anybody_has_seen(
    disaster: Disaster, lost: tuple[str, ...]
) -> None:
    await story(disaster)
    disaster.service.kill()
    await disaster.restore()
    await disaster.lose(*lost)
    await disaster.service.start().ready()

    await refuses(disaster, 4)


@pytest.mark.slow
async def test_a_service_that_lived_through_the_restore_remembers_what_it_read(disaster: Disaster) -> None:
    await story(disaster)
    await disaster.lose("redis", "kafka", "store")

    await disaster.restore()

    async def noticed() -> bool:
        try:
            return (await disaster.author.worker.ready()).checks["generations"] != "ok"
        except (KeyError, UnavailableError):
            return False

    await eventually(noticed)
    await refuses(disaster, 4)


async def test_what_an_older_backup_lacks_is_rebuilt_from_signed_records(disaster: Disaster, topics: Topics) -> None:
    author = disaster.author
    restored = await story(disaster)
    before, told = await disaster.releases(), await topics.updated()
    disaster.service.kill()
    await disaster.restore()
    await disaster.service.start().ready()

    code, plan, _ = await disaster.recover("releases")
    assert (code, [one["generation"] for one in plan["rebuild"]], plan["problems"]) == (1, [2, 3, 4], [])
    assert len(await disaster.releases()) == 1
    code, done, error = await disaster.recover("releases", "--apply")

    assert (code, done["applied"]) == (0, True), error
    assert await disaster.releases() == before
    current = await eventually(author.worker.current)
    assert current is not None
    assert (current.generation, current.checksum) == (4, restored.checksum)
    assert await disaster.recover("releases") == (
        0,
        plan | {"rebuild": [], "known": 4, "standings": [], "notes": [], "next": ""},
        "",
    )
    with pytest.raises(ConflictError, match="was closed by a rollback"):
        await author.lease(before[2].update_id)  # undone by generation 4
    await author.confirmed(author.draft("1.3.0", following(restored)), expected_generation=4)
    await author.delivered(5)
    after = await topics.updated()
    assert after[: len(told)] == told
    assert {record.value["generation"] for record in after[len(told) :]} == {5}


@pytest.mark.slow
async def test_a_release_rebuilt_from_its_event_alone_is_live_and_can_be_undone_by_a_quorum(
    disaster: Disaster, topics: Topics
) -> None:
    author = disaster.author
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    await author.delivered(1)
    await disaster.back_up()
    second, _ = await author.publish(author.draft("1.1.0", following(first)), expected_generation=1)
    await author.delivered(2)
    told = await topics.updated()
    disaster.service.kill()
    await disaster.restore()
    shutil.rmtree(disaster.store / "releases")
    await disaster.lose("redis")
    await disaster.service.start().ready()

    code, done, error = await disaster.recover("releases", "--apply")

    assert (code, done["applied"]) == (0, True), error
    assert any("without its approvals" in note for note in done["notes"])
    assert [one.event_id for one in await disaster.releases()][1] == second.event_id
    lease = await author.lease(str(uuid4()), Kind.ROLLBACK)
    refused = await author.post_load(author.undoing(lease, 2, first.checksum))
    assert (refused.status_code, refused.json()["code"]) == (403, "not-approved")
    quorum = author.approvals(
        None, kind=Kind.ROLLBACK, checksum=first.checksum, rollback_of=2, members=("alva", "bruno", "chen")
    )
    result = await author.load(author.undoing(lease, 2, first.checksum, quorum), "undo-by-quorum")
    await author.delivered(3)
    assert (result.generation, result.checksum) == (3, first.checksum)
    after = await topics.updated()
    assert after[: len(told)] == told
    assert {record.value["generation"] for record in after[len(told) :]} == {3}


@pytest.mark.slow
async def test_a_generation_of_which_nothing_is_left_must_be_declared_lost_and_is_never_used(
    disaster: Disaster,
) -> None:
    author = disaster.author
    restored = await story(disaster)
    disaster.service.kill()
    await disaster.restore()
    shutil.rmtree(disaster.store / "releases")
    await disaster.lose("kafka")
    await disaster.service.start().ready()

    code, plan, _ = await disaster.recover("releases", "--apply")
    assert (code, plan["applied"], plan["lost"]) == (1, False, [2, 3])
    assert "--lost 2 --lost 3" in plan["next"]
    code, done, error = await disaster.recover("releases", "--lost", "2", "--lost", "3", "--apply")

    assert (code, done["applied"]) == (0, True), error
    assert [one.generation for one in await disaster.releases()] == [1, 4]
    after = await author.confirmed(author.draft("1.3.0", following(restored)), expected_generation=4)
    assert after.generation == 5


@pytest.mark.slow
async def test_whoever_was_let_in_before_the_restore_is_shut_out(disaster: Disaster) -> None:
    author = disaster.author
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    late = await author.prepared(author.draft("1.1.0", following(first)), expected_generation=1)
    held = await author.lease(late.update_id)
    await disaster.back_up()
    undo = await author.lease(late.update_id, Kind.ROLLBACK)  # it published nothing, and is closed for ever
    await author.release_lease(undo)
    for _ in range(5):
        undo = await author.lease(str(uuid4()), Kind.ROLLBACK)
        await author.release_lease(undo)
    disaster.service.kill()
    await disaster.restore()
    await disaster.service.start().ready()

    code, done, error = await disaster.recover("releases", "--apply")

    assert (code, done["applied"]) == (0, True), error
    answer = await author.post_load(late.model_copy(update={"fencing_token": held.fencing_token}))
    assert (answer.status_code, answer.json()["code"]) == (409, "lease-lost")
    with pytest.raises(ConflictError, match="was closed by a rollback"):
        await author.lease(late.update_id)
    fresh = await author.lease(str(uuid4()))
    assert fresh.fencing_token > undo.fencing_token


@pytest.mark.slow
async def test_strangers_who_write_to_every_witness_block_no_release(
    disaster: Disaster, topics: Topics, kafka_configuration: dict[str, Any]
) -> None:
    from confluent_kafka import Producer

    author = disaster.author
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    await author.delivered(1)
    await disaster.recorded("0000000001/release")
    true = (await topics.updated())[0]
    forged = true.value | {"generation": 9}
    producer = Producer(kafka_configuration)
    producer.produce(disaster.names.topic_updated(), json.dumps(forged), headers={"ce_id": str(uuid4())})
    assert producer.flush(10) == 0
    folder = disaster.store / "releases" / disaster.names.namespace / ENVIRONMENT
    shutil.copytree(folder / "0000000001", folder / "0000000002")
    disaster.service.kill()
    await disaster.service.start().ready()

    second = await author.confirmed(author.draft("1.1.0", following(first)), expected_generation=1)

    assert second.generation == 2
    await disaster.recorded("0000000002/confirmed")
    assert (await disaster.recover("releases"))[0] == 0


@pytest.mark.slow
async def test_a_lost_topic_is_filled_again_under_the_same_ids_in_the_same_order(
    disaster: Disaster, topics: Topics
) -> None:
    author = disaster.author
    restored = await story(disaster)
    told = await topics.updated()
    code, _, error = await disaster.recover("topic", "--apply")
    assert code == 0, error
    disaster.service.kill()
    await disaster.lose("kafka")

    code, plan, _ = await disaster.recover("topic")
    assert (code, plan["events"]) == (1, len(told))

    async def sent() -> bool:
        code, _, error = await disaster.recover("topic", "--apply")
        assert code == 0 or "relays" in error, error  # until the killed process's right to relay has ended
        return code == 0

    await eventually(sent)
    again = await topics.updated()
    assert [(r.key, r.headers, r.value) for r in again] == [(r.key, r.headers, r.value) for r in told]
    await disaster.service.start().ready()
    delivered = [event.offset for one in await disaster.releases() for event in one.delivery.events]
    assert delivered == [record.offset for record in again]
    await author.confirmed(author.draft("1.3.0", following(restored)), expected_generation=4)
    await author.delivered(5)
    assert [record.value["generation"] for record in await topics.updated()][-2:] == [5, 5]


async def test_a_flushed_redis_is_filled_again_while_nobody_reads(disaster: Disaster) -> None:
    await story(disaster)

    await disaster.lose("redis")

    async def back() -> bool:
        raw = await disaster.redis.get(disaster.names.redis_current())
        return raw is not None and json.loads(raw)["generation"] == 4

    await eventually(back)
    assert await disaster.redis.get(disaster.names.redis_floor()) == b"4"


@pytest.mark.slow
async def test_a_lost_artifact_store_is_filled_again_byte_by_byte(disaster: Disaster) -> None:
    author = disaster.author
    restored = await story(disaster)
    before = {
        path.relative_to(disaster.store): path.read_bytes() for path in disaster.store.rglob("*") if path.is_file()
    }

    await disaster.lose("store")
    assert restored.checksum is not None
    assert await author.worker.artifact(restored.checksum)

    code, plan, _ = await disaster.recover("store")
    assert code == 1
    assert plan["objects"] > 0
    code, done, error = await disaster.recover("store", "--apply")

    after = {
        path.relative_to(disaster.store): path.read_bytes() for path in disaster.store.rglob("*") if path.is_file()
    }
    # Attachments of evidence are nowhere else but in the archive, which this test has none of: the command says so.
    lost = {path for path in before if path.parts[0] == "blobs"}
    assert after == {path: data for path, data in before.items() if path not in lost}, error
    junit = [path for path in lost if before[path].startswith(b"<testsuites")]
    assert len(junit) > 1
    assert (code, len(done["lacking"])) == (1, len(junit))
