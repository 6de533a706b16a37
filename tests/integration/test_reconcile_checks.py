"""What reconciliation says of a topic, a store and a queue that were meddled with; each asked for real."""

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from confluent_kafka import Producer
from temporalio.client import Client
from temporalio.common import SearchAttributePair, TypedSearchAttributes
from temporalio.worker import Worker

from activities.reconcile.run_checks import RunChecks, RunsInput
from activities.reconcile.target_checks import DocumentsInput, TargetChecks, TargetsInput, TopicInput
from adapters.event_log import KafkaEventLog
from adapters.runs import TemporalSearch
from adapters.targets import HttpTargets
from constitution.environment import Target
from constitution.names import Names
from constitution.release import Envelope
from services.constitution_service.statement_key import load_statement_key
from signatures.statements import verify_release
from tests.helpers import eventually
from tests.integration.activity_support import make_config, run
from tests.resources import Database
from tests.world.author import Author
from tests.world.documents import following
from tests.world.files import ENVIRONMENT, EnvironmentFiles
from tests.world.readings import Topics
from workflows.reconcile import ConstitutionReconcile
from workflows.status import UPDATE_ID

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def targets(
    *,
    author: Author,
    environment_files: EnvironmentFiles,
    kafka_configuration: dict[str, str | int],
    names: Names,
    tmp_path: Path,
) -> TargetChecks:
    return TargetChecks(
        service=author.worker,
        targets=HttpTargets(environment_files.key("worker"), ENVIRONMENT),
        topic=KafkaEventLog({name: str(value) for name, value in kafka_configuration.items()}, names),
        config=make_config(environment_files, tmp_path),
    )


async def delivered(topics: Topics, generation: int) -> None:
    async def is_there() -> bool:
        return any(record.value["generation"] == generation for record in await topics.updated())

    await eventually(is_there, timedelta(seconds=30))


async def test_an_event_that_postgres_does_not_know_is_told_as_lost_or_as_forged(
    *, targets: TargetChecks, author: Author, topics: Topics, kafka_configuration: dict[str, str | int], names: Names
) -> None:
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    await author.confirmed(author.draft("1.1.0", following(first)), expected_generation=1)
    await delivered(topics, 2)

    def question(highest: int) -> TopicInput:
        return TopicInput(environment=ENVIRONMENT, highest=highest, since=BEGINNING)

    assert (await run(targets.check_topic, question(2))).findings == ()

    (lost,) = (await run(targets.check_topic, question(1))).findings
    assert (lost.code, "generation 2 is signed" in lost.message) == ("event-unknown", True)
    assert lost.command.startswith("python -m services.constitution_service.recovery releases")

    genuine = next(r for r in await topics.updated() if r.value["generation"] == 2)
    forged = json.dumps(genuine.value | {"generation": 99}).encode()  # with a statement that is true of another one
    producer = Producer(kafka_configuration)
    producer.produce(names.topic_updated(), forged, key=b"global", headers={"ce_id": b"forged"}, partition=0)
    assert producer.flush(20) == 0
    (told,) = (await run(targets.check_topic, question(2))).findings
    assert (told.code, "1 forged events" in told.message) == ("event-unknown", True), told


async def test_an_event_that_the_service_key_signed_for_another_environment_proves_no_lost_release(
    *,
    targets: TargetChecks,
    author: Author,
    environment_files: EnvironmentFiles,
    topics: Topics,
    kafka_configuration: dict[str, str | int],
    names: Names,
) -> None:
    await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    await delivered(topics, 1)
    genuine = (await topics.updated())[0].value
    key = load_statement_key(environment_files.directory / "keys" / "constitution-service.jwk", environment_files.trust)
    release = verify_release(Envelope.model_validate(genuine["statement"]), environment_files.trust)
    elsewhere = release.model_copy(update={"environment": "elsewhere", "generation": 2})
    statement = key.sign(elsewhere, environment_files.trust).model_dump(mode="json")
    event = json.dumps(genuine | {"generation": 2, "statement": statement}).encode()
    producer = Producer(kafka_configuration)
    producer.produce(names.topic_updated(), event, key=b"global", headers={"ce_id": b"elsewhere"}, partition=0)
    assert producer.flush(20) == 0
    question = TopicInput(environment=ENVIRONMENT, highest=1, since=BEGINNING)
    (told,) = (await run(targets.check_topic, question)).findings
    assert "1 forged events" in told.message


async def test_a_document_that_store_and_postgres_have_lost_is_named_until_it_is_pushed_again(
    *, targets: TargetChecks, author: Author, database: Database, tmp_path: Path
) -> None:
    document = author.draft("1.0.0")
    checksum = await author.push(document)
    question = DocumentsInput(environment=ENVIRONMENT, live=(), fallback=checksum)
    assert (await run(targets.check_documents, question)).findings == ()

    folder = tmp_path / "store" / "artifacts" / "sha256" / checksum.removeprefix("sha256:")
    shutil.rmtree(folder)
    assert (await run(targets.check_documents, question)).findings == ()  # Postgres has it, and gives it back
    assert (folder / "document.json").read_bytes() == document

    shutil.rmtree(folder)
    owner = await asyncpg.connect(database.owner_url)
    try:
        async with owner.transaction():
            await owner.execute(
                "ALTER TABLE artifacts DISABLE TRIGGER USER; ALTER TABLE artifact_signatures DISABLE TRIGGER USER"
            )
            await owner.execute("DELETE FROM artifact_signatures WHERE checksum = $1", checksum)
            await owner.execute("DELETE FROM artifacts WHERE checksum = $1", checksum)
            await owner.execute(
                "ALTER TABLE artifacts ENABLE TRIGGER USER; ALTER TABLE artifact_signatures ENABLE TRIGGER USER"
            )
    finally:
        await owner.close()
    (lost,) = (await run(targets.check_documents, question)).findings
    assert (lost.code, lost.where) == ("artifact-lost", checksum)
    assert "what a rollback would restore" in lost.message
    assert "push the document" in lost.command

    await author.push(document)
    assert (await run(targets.check_documents, question)).findings == ()


async def test_a_target_source_that_gives_no_list_is_a_finding_and_hides_no_other_target(
    *,
    author: Author,
    environment_files: EnvironmentFiles,
    kafka_configuration: dict[str, str | int],
    names: Names,
    tmp_path: Path,
) -> None:
    source = 'id = "pods"\nsource = "file"\nat = "pods.json"\nkind = "policy_engine"\nmin_targets = 1\n'
    environment_files.environment_file.write_text(
        f"{environment_files.environment_file.read_text()}[[target_sources]]\n{source}"
    )
    dead = Target(id="engine-1", kind="policy_engine", url="http://127.0.0.1:1")
    client = HttpTargets(environment_files.key("worker"), ENVIRONMENT)
    checks = TargetChecks(
        service=author.worker,
        targets=client,
        topic=KafkaEventLog({name: str(value) for name, value in kafka_configuration.items()}, names),
        config=make_config(environment_files, tmp_path, targets=(dead,)),
    )
    question = TargetsInput(environment=ENVIRONMENT, live=(), refresh=False)
    listed = environment_files.directory / "pods.json"
    try:
        for written in (None, "[]"):
            if written is not None:
                listed.write_text(written)
            blind, silent = (await run(checks.check_targets, question)).findings
            assert (blind.code, blind.where) == ("cannot-look", "target sources")
            assert (silent.code, silent.where) == ("target-unreachable", "engine-1")
        listed.write_text('[{"targets": ["127.0.0.1:2"], "labels": {"target": "pod-1"}}]')
        found = (await run(checks.check_targets, question)).findings
        assert [(one.code, one.where) for one in found] == [
            ("target-unreachable", "engine-1"),
            ("target-unreachable", "pod-1"),
        ]
    finally:
        await client.aclose()


@pytest.mark.slow  # Temporal reports it after five failed tasks, which takes a minute
async def test_a_run_whose_workflow_task_fails_again_and_again_is_named(temporal_client: Client, names: Names) -> None:
    queue = names.task_queue()
    runs = RunChecks(search=TemporalSearch(temporal_client, queue))
    handle = await temporal_client.start_workflow("OfAnotherTime", id=f"{queue}/stalls", task_queue=queue)
    try:
        async with Worker(temporal_client, task_queue=queue, workflows=[ConstitutionReconcile]):

            async def named() -> bool:
                found = (await run(runs.check_runs, RunsInput(environment=ENVIRONMENT))).findings
                assert [(f.code, f.where) for f in found] == [("run-stalls", handle.id)]
                assert "OfAnotherTime" in found[0].message
                return True

            await eventually(named, timedelta(seconds=90))
    finally:
        await handle.terminate("the test is over")


async def test_a_dead_update_and_a_dead_rollback_are_found_and_a_dead_guard_is_given_no_guard(
    temporal_client: Client, names: Names
) -> None:
    """A guard carries its family's update id and never has an outcome: it is found by that, and must not be."""
    queue = names.task_queue()
    search = TemporalSearch(temporal_client, queue)
    carries = TypedSearchAttributes([SearchAttributePair(UPDATE_ID, str(uuid4()))])
    started = {}
    for kind in ("ConstitutionGuard", "ConstitutionUpdate", "ConstitutionRollback"):
        handle = await temporal_client.start_workflow(
            kind, id=f"{queue}/{kind}", task_queue=queue, search_attributes=carries
        )
        await handle.terminate("the test kills the family")
        started[kind] = handle.id
    since = datetime.now(UTC) - timedelta(hours=1)

    async def all_are_visible() -> bool:
        return len(await search.carrying(carries[UPDATE_ID])) == 3

    await eventually(all_are_visible, timedelta(seconds=30))
    found = {run["workflow_id"] for run in await search.without_outcome(since)}
    assert found == {started["ConstitutionUpdate"], started["ConstitutionRollback"]}
