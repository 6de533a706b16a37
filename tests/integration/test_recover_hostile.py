"""`recover` among vandals, gaps and second thoughts: it never uses a number twice, and never leaves anybody stuck."""

import asyncio
import json
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from confluent_kafka import Producer
from confluent_kafka.cimpl import NewTopic

from constitution.errors import ConflictError, UnavailableError
from constitution.release import Delivery, Kind, Standing
from services.constitution_service.generations.records import StandingFile, sign_record
from services.constitution_service.statement_key import StatementKey, load_statement_key
from tests.helpers import eventually
from tests.integration.disaster import Disaster, refuses, story
from tests.world.documents import following
from tests.world.environment import serving
from tests.world.files import ENVIRONMENT, EnvironmentFiles
from tests.world.readings import Topics
from tests.world.trust import next_version


async def restored_without(disaster: Disaster, *lost: str) -> None:
    """Bring the older database back, and lose more."""
    disaster.service.kill()
    await disaster.restore()
    await disaster.lose(*lost)


def service_key(files: EnvironmentFiles) -> StatementKey:
    return load_statement_key(files.directory / "keys" / "constitution-service.jwk", files.trust)


def standing_of(generation: int, checksum: str | None, standing: Standing) -> StandingFile:
    """A standing as another database under the same key would have recorded it."""
    return StandingFile(
        environment=ENVIRONMENT,
        generation=generation,
        checksum=checksum,
        standing=standing,
        verdict=None,
        reason="of another life",
        update_id=str(uuid4()),
        recorded_at=datetime.now(UTC),
    )


@contextmanager
def silent_server() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        yield f"127.0.0.1:{silent.getsockname()[1]}"


@pytest.mark.slow
async def test_apply_that_applies_nothing_is_no_success_and_says_why(disaster: Disaster) -> None:
    author = disaster.author
    await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    await author.delivered(1)

    code, done, error = await disaster.recover("releases", "--apply", "--lost", "7")

    assert (code, done["applied"]) == (1, False)
    assert "leave out --lost" in error
    code, done, error = await disaster.recover("releases", "--apply", "--reason", " ")
    assert (code, done["applied"]) == (1, False)
    assert "--reason" in error


@pytest.mark.slow
async def test_generations_that_only_a_person_knows_of_can_be_declared_lost(disaster: Disaster) -> None:
    author = disaster.author
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    await author.delivered(1)
    await disaster.back_up()
    second = await author.confirmed(author.draft("1.1.0", following(first)), expected_generation=1)
    await author.confirmed(author.draft("1.2.0", following(second)), expected_generation=2)
    await author.delivered(3)
    await restored_without(disaster, "redis", "kafka", "store")
    await disaster.service.start().ready()

    code, plan, _ = await disaster.recover("releases", "--lost", "2", "--lost", "3")
    assert (code, plan["lost"], plan["next"].split()[-5:]) == (1, [2, 3], ["--lost", "2", "--lost", "3", "--apply"])
    code, done, error = await disaster.recover("releases", "--lost", "2", "--lost", "3", "--apply")

    assert (code, done["applied"]) == (0, True), error
    after = await author.confirmed(author.draft("1.3.0", following(first)), expected_generation=3)
    assert after.generation == 4


@pytest.mark.slow
async def test_a_standing_that_outlived_its_release_keeps_nobody_from_recovering(disaster: Disaster) -> None:
    author = disaster.author
    restored = await story(disaster)
    await restored_without(disaster, "kafka")
    disaster.records("0000000002/release")[0].unlink()
    await disaster.service.start().ready()

    code, plan, _ = await disaster.recover("releases")
    assert (code, plan["lost"], [one["generation"] for one in plan["rebuild"]]) == (1, [2], [3, 4])
    code, done, error = await disaster.recover("releases", "--lost", "2", "--apply")

    assert (code, done["applied"]) == (0, True), error
    code, left, error = await disaster.recover("releases")
    assert code == 0, (left, error)
    await author.confirmed(author.draft("1.3.0", following(restored)), expected_generation=4)
    await author.delivered(5)
    await disaster.recorded("0000000005/confirmed")
    assert disaster.service.events("record_conflict") == []


@pytest.mark.slow
async def test_a_confirmation_that_comes_back_late_does_not_make_good_what_was_undone(
    disaster: Disaster, environment_files: EnvironmentFiles
) -> None:
    author = disaster.author
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    bad, held = await author.publish(author.draft("1.1.0", following(first)), expected_generation=1)
    await author.delivered(2)
    await disaster.recorded("0000000002/release")
    await disaster.back_up()
    await author.stand(2, Standing.CONFIRMED, held)
    await disaster.recorded("0000000002/confirmed")
    await restored_without(disaster)
    await disaster.service.start().ready()
    undo = await author.lease(held.update_id, Kind.ROLLBACK)
    await author.load(author.undoing(undo, bad.generation, first.checksum), "undo")
    await author.stand(2, Standing.POISONED, undo)
    await author.release_lease(undo)
    # And one that the same key signed for another document under this number.
    other = standing_of(1, bad.checksum, Standing.POISONED)
    disaster.records("0000000001/poisoned")[0].write_bytes(sign_record(other, service_key(environment_files)))

    code, plan, error = await disaster.recover("releases")
    assert (code, plan["standings"]) == (0, []), error
    code, _, error = await disaster.recover("releases", "--apply")

    assert code == 0, error
    assert (await author.worker.release(2)).standing is Standing.POISONED
    assert (await author.worker.release(1)).standing is Standing.CONFIRMED


@pytest.mark.slow
async def test_an_author_who_has_left_does_not_keep_their_releases_from_coming_back(
    disaster: Disaster, environment_files: EnvironmentFiles
) -> None:
    await story(disaster)
    before = await disaster.releases()
    await restored_without(disaster, "kafka", "redis")
    next_version(environment_files, ('"maintainer", "author"', '"maintainer"'))
    await disaster.service.start().ready()

    code, done, error = await disaster.recover("releases", "--apply")

    assert (code, done.get("applied")) == (0, True), error
    after = await disaster.releases()
    assert [one.model_copy(update={"delivery": Delivery()}) for one in after] == [
        one.model_copy(update={"delivery": Delivery()}) for one in before
    ]
    change_request = before[1].change_request
    assert change_request is not None
    assert (await disaster.author.worker.change_request(change_request)).request.author == "mara"


@pytest.mark.slow
async def test_a_gap_in_the_records_hides_nothing_that_lies_beyond_it(disaster: Disaster) -> None:
    author = disaster.author
    restored = await story(disaster)
    await restored_without(disaster, "redis", "kafka")
    shutil.rmtree(disaster.records("0000000002/release")[0].parent)
    strange = disaster.records("9999999999/release")[0]  # anyone who may write to the store can put that there
    strange.parent.mkdir()
    strange.write_text("rubbish")
    await disaster.service.start().ready()

    await refuses(disaster, 4)
    code, plan, error = await disaster.recover("releases")
    assert (code, plan["lost"], [one["generation"] for one in plan["rebuild"]]) == (1, [2], [3, 4]), error
    code, _, error = await disaster.recover("releases", "--lost", "2", "--apply")
    assert code == 0, error
    after = await author.confirmed(author.draft("1.3.0", following(restored)), expected_generation=4)
    assert after.generation == 5


@pytest.mark.slow
async def test_whatever_makes_the_service_refuse_is_what_the_command_goes_by(disaster: Disaster) -> None:
    await story(disaster)
    key = disaster.names.redis_current()
    value = json.loads(await disaster.redis.get(key) or b"")
    await restored_without(disaster, "kafka")
    shutil.rmtree(disaster.store / "releases")
    await disaster.redis.set(key, json.dumps(value | {"document": "{}", "signatures": ["x"], "version": "9.9.9"}))
    await disaster.service.start().ready()

    await refuses(disaster, 4)
    code, plan, error = await disaster.recover("releases")
    assert (code, plan["lost"], [one["generation"] for one in plan["rebuild"]]) == (1, [2, 3], [4]), error
    assert (plan["rebuild"][0]["version"], plan["problems"]) == ("1.1.0", [])
    code, _, error = await disaster.recover("releases", "--lost", "2", "--lost", "3", "--apply")
    assert code == 0, error
    current = await eventually(disaster.author.worker.current)
    assert current is not None
    assert (current.generation, current.version) == (4, "1.1.0")


@pytest.mark.slow
async def test_what_an_event_says_beside_its_statement_is_not_taken_for_history(
    disaster: Disaster, topics: Topics, kafka_configuration: dict[str, Any]
) -> None:
    author = disaster.author
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    await author.delivered(1)
    await disaster.back_up()
    second, _ = await author.publish(author.draft("1.1.0", following(first)), expected_generation=1)
    await author.delivered(2)
    told = [record for record in await topics.updated() if record.value["generation"] == 2]
    await restored_without(disaster, "redis", "kafka")
    shutil.rmtree(disaster.store / "releases")
    made = disaster.kafka.create_topics([NewTopic(disaster.names.topic_updated(), 1)])
    made[disaster.names.topic_updated()].result(10)
    producer = Producer(kafka_configuration)
    forged = told[0].value | {"approvers": ["chen"]}
    for value, identity in (
        (forged, "no-uuid"),
        (forged | {"tenant": "nobody"}, f"{uuid4()}:nobody"),
        (forged | {"checksum": first.checksum}, f"{uuid4()}:global"),
    ):
        producer.produce(disaster.names.topic_updated(), json.dumps(value), headers={"ce_id": identity})
    assert producer.flush(10) == 0
    await disaster.service.start().ready()

    code, done, error = await disaster.recover("releases", "--apply")

    assert (code, done.get("applied")) == (0, True), error
    rebuilt = await author.worker.release(2)
    assert (rebuilt.checksum, rebuilt.approvers, rebuilt.approvals) == (second.checksum, (), ())
    # What lies on the topic is not what the row says: consumers are told by an event of the service itself.
    delivered = await author.delivered(2)
    assert {event.tenant for event in delivered.delivery.events} == {"global", "acme"}
    assert min(event.offset for event in delivered.delivery.events) >= 3


@pytest.mark.slow
async def test_a_damaged_record_is_found_and_written_again(disaster: Disaster) -> None:
    author = disaster.author
    await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    await author.delivered(1)
    await disaster.recorded("0000000001/release", "0000000001/confirmed")
    files = disaster.records("0000000001/release", "0000000001/confirmed")
    genuine = [file.read_bytes() for file in files]
    files[0].write_bytes(b"rubbish")
    files[1].write_bytes(genuine[0])

    code, plan, _ = await disaster.recover("store")
    assert (code, plan["objects"]) == (1, 2)
    _, _, error = await disaster.recover("store", "--apply")

    assert [file.read_bytes() for file in files] == genuine, error


@pytest.mark.slow
async def test_two_who_fill_the_topic_at_once_send_nothing_twice(disaster: Disaster, topics: Topics) -> None:
    await story(disaster)
    told = await topics.updated()
    assert disaster.service.stop() == 0
    await disaster.lose("kafka")

    async def fill() -> int:
        code, _, error = await disaster.recover("topic", "--apply")
        assert code == 0 or "relays" in error or "fenced" in error, error
        return code

    codes = await asyncio.gather(fill(), fill(), fill())
    assert 0 in codes
    code, _, error = await disaster.recover("topic", "--apply")

    assert code == 0, error
    again = await topics.updated()
    assert [(r.key, r.headers, r.value) for r in again] == [(r.key, r.headers, r.value) for r in told]
    await disaster.service.start().ready()
    delivered = [event.offset for one in await disaster.releases() for event in one.delivery.events]
    assert delivered == [record.offset for record in again]


@pytest.mark.slow
async def test_a_kafka_that_is_silent_at_the_start_delays_no_refusal(
    disaster: Disaster, service_settings: dict[str, str], environment_files: EnvironmentFiles
) -> None:
    await story(disaster)
    await restored_without(disaster, "redis")
    with silent_server() as address:
        settings = service_settings | {"KAFKA_BOOTSTRAP_SERVERS": address}
        async with serving(environment_files, settings, disaster.service.log) as cut_off:
            author = cut_off.author
            answer = await author.http.get("/v1/constitution")
            assert (answer.status_code, answer.json()["code"]) == (503, "postgres-behind")
            with pytest.raises(UnavailableError, match="restored from an older backup"):
                await author.worker.current()


@pytest.mark.slow
async def test_killed_half_way_it_has_written_nothing_and_the_next_one_writes_all(disaster: Disaster) -> None:
    await story(disaster)
    before = await disaster.releases()
    await restored_without(disaster)
    await disaster.service.start().ready()
    owner = await asyncpg.connect(disaster.database.owner_url)
    admin = await asyncpg.connect(disaster.admin_url)  # who alone may see what others wait for
    try:
        async with owner.transaction():
            # It stops where it writes standings: three releases and their events have been written by then.
            await owner.execute("LOCK TABLE standings IN EXCLUSIVE MODE")
            process = disaster.begin_recover("releases", "--apply")
            waiting = (
                "SELECT count(*) = 1 FROM pg_stat_activity"
                " WHERE datname = $1 AND wait_event_type = 'Lock' AND query LIKE '%INSERT INTO standings%'"
            )
            own = await owner.fetchval("SELECT current_database()")
            await eventually(lambda: admin.fetchval(waiting, own))
            process.kill()
            process.communicate(timeout=10)
    finally:
        await owner.close()
        await admin.close()
    assert [one.generation for one in await disaster.releases()] == [1]
    await refuses(disaster, 4)

    code, _, error = await disaster.recover("releases", "--apply")

    assert code == 0, error
    assert await disaster.releases() == before


@pytest.mark.slow
async def test_two_who_recover_at_once_write_everything_once(disaster: Disaster) -> None:
    await story(disaster)
    before = await disaster.releases()
    await restored_without(disaster)
    await disaster.service.start().ready()

    found = await asyncio.gather(*(disaster.recover("releases", "--apply") for _ in range(3)))

    assert 0 in {code for code, _, _ in found}
    for code, done, error in found:
        assert (code, done["applied"]) in {(0, True), (1, False)}
        assert code == 0 or "the plan was made for generation 1; PostgreSQL is at 4" in error
    assert await disaster.releases() == before
    assert (await disaster.recover("releases"))[0] == 0


@pytest.mark.slow
async def test_nothing_is_given_out_while_nobody_can_say_that_it_is_unused(
    disaster: Disaster, service_settings: dict[str, str], environment_files: EnvironmentFiles
) -> None:
    first = await disaster.author.confirmed(disaster.author.draft("1.0.0"), expected_generation=0)
    await disaster.author.delivered(1)
    await disaster.recorded("0000000001/release")
    disaster.service.kill()
    hidden = (disaster.store / "releases").rename(disaster.store.parent / "hidden")
    with silent_server() as address:
        settings = service_settings | {"KAFKA_BOOTSTRAP_SERVERS": address}
        async with serving(environment_files, settings, disaster.service.log) as cut_off:
            author = cut_off.author
            request = await author.prepared(author.draft("1.1.0", following(first)), expected_generation=1)
            held = await author.lease(request.update_id)
            request = request.model_copy(update={"fencing_token": held.fencing_token})
            answer = await author.post_load(request)
            assert (answer.status_code, answer.json()["code"]) == (503, "generation-unproved")
            assert answer.headers["retry-after"]
            hidden.rename(disaster.store / "releases")
            assert (await author.post_load(request)).json()["generation"] == 2


@pytest.mark.slow
async def test_an_emptied_topic_is_no_proof_that_a_generation_is_unused(disaster: Disaster) -> None:
    author = disaster.author
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    await author.delivered(1)
    await disaster.recorded("0000000001/release")
    assert disaster.service.stop() == 0
    hidden = (disaster.store / "releases").rename(disaster.store.parent / "hidden")
    await disaster.lose("kafka")
    await disaster.service.start().ready()
    request = await author.prepared(author.draft("1.1.0", following(first)), expected_generation=1)
    held = await author.lease(request.update_id)
    request = request.model_copy(update={"fencing_token": held.fencing_token})

    answer = await author.post_load(request)

    assert (answer.status_code, answer.json()["code"]) == (503, "generation-unproved")
    hidden.rename(disaster.store / "releases")
    assert (await author.post_load(request)).json()["generation"] == 2


@pytest.mark.slow
async def test_before_the_first_release_a_silent_kafka_is_waited_for(
    disaster: Disaster, service_settings: dict[str, str], environment_files: EnvironmentFiles
) -> None:
    with silent_server() as address:
        settings = service_settings | {"KAFKA_BOOTSTRAP_SERVERS": address}
        async with serving(environment_files, settings, disaster.service.log) as cut_off:
            author = cut_off.author
            request = await author.prepared(author.draft("1.0.0"), expected_generation=0)
            held = await author.lease(request.update_id)
            request = request.model_copy(update={"fencing_token": held.fencing_token})
            answer = await author.post_load(request)
            assert (answer.status_code, answer.json()["code"]) == (503, "generation-unproved")
    assert (await disaster.author.post_load(request)).json()["generation"] == 1


async def test_nothing_is_confirmed_while_releases_are_missing(disaster: Disaster) -> None:
    author = disaster.author
    first, held = await author.publish(author.draft("1.0.0"), expected_generation=0)
    await author.delivered(1)
    await disaster.back_up()
    await author.stand(1, Standing.CONFIRMED, held)
    await author.release_lease(held)
    await author.confirmed(author.draft("1.1.0", following(first)), expected_generation=1)
    await author.delivered(2)
    await restored_without(disaster)
    await disaster.service.start().ready()

    with pytest.raises(ConflictError, match="generation 2 was live"):
        await author.stand(1, Standing.CONFIRMED, held)


@pytest.mark.slow
async def test_a_signed_record_of_another_life_is_not_overwritten(
    disaster: Disaster, environment_files: EnvironmentFiles
) -> None:
    author = disaster.author
    first, held = await author.publish(author.draft("1.0.0"), expected_generation=0)
    await author.delivered(1)
    await disaster.recorded("0000000001/release")
    path = disaster.records("0000000001/confirmed")[0]
    other = sign_record(standing_of(1, first.checksum, Standing.CONFIRMED), service_key(environment_files))
    path.write_bytes(other)

    await author.stand(1, Standing.CONFIRMED, held)

    await eventually(lambda: bool(disaster.service.events("record_conflict")))
    assert path.read_bytes() == other


@pytest.mark.slow
async def test_events_are_not_put_after_later_ones(disaster: Disaster, topics: Topics) -> None:
    author = disaster.author
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    await author.delivered(1)
    assert disaster.service.stop() == 0
    await disaster.lose("kafka")
    await disaster.service.start().ready()
    await author.confirmed(author.draft("1.1.0", following(first)), expected_generation=1)
    await author.delivered(2)
    told = await topics.updated()
    assert disaster.service.stop() == 0

    code, _, error = await disaster.recover("topic", "--apply")

    assert (code, await topics.updated()) == (1, told)
    assert "the topic holds generation 2 and lacks 1" in error
    assert "delete the topic" in error
    await disaster.service.start().ready()


@pytest.mark.slow
async def test_an_event_that_waited_in_the_backup_is_not_told_again_after_later_ones(
    disaster: Disaster, service_settings: dict[str, str], environment_files: EnvironmentFiles, topics: Topics
) -> None:
    author = disaster.author
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    await author.delivered(1)
    await disaster.recorded("0000000001/confirmed")
    assert disaster.service.stop() == 0
    with silent_server() as address:
        settings = service_settings | {"KAFKA_BOOTSTRAP_SERVERS": address}
        async with serving(environment_files, settings, disaster.service.log) as alone:
            cut_off = alone.author
            second = await cut_off.confirmed(cut_off.draft("1.1.0", following(first)), expected_generation=1)
            await disaster.recorded("0000000002/confirmed")
            await disaster.back_up()
    await disaster.service.start().ready()
    await author.confirmed(author.draft("1.2.0", following(second)), expected_generation=2)
    await author.delivered(3)
    told = await topics.updated()
    await restored_without(disaster)
    await disaster.service.start().ready()
    await eventually(lambda: len(disaster.service.events("relay_elected")) >= 4)

    with pytest.raises(UnavailableError, match="restored from an older backup"):
        await author.worker.current()
    code, _, error = await disaster.recover("releases", "--apply")

    assert code == 0, error
    assert (await author.delivered(3)).generation == 3
    assert await topics.updated() == told


@pytest.mark.slow
async def test_without_any_backup_the_whole_history_comes_back(disaster: Disaster) -> None:
    author = disaster.author
    restored = await story(disaster)
    before = await disaster.releases()
    disaster.service.kill()
    await disaster.restore_nothing()
    await disaster.service.start().ready()
    with pytest.raises(UnavailableError, match="restored from an older backup"):
        await author.worker.current()

    code, done, error = await disaster.recover("releases", "--apply")

    assert (code, done["applied"]) == (0, True), error
    assert await disaster.releases() == before
    after = await author.confirmed(author.draft("1.3.0", following(restored)), expected_generation=4)
    assert after.generation == 5
