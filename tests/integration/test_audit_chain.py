"""The audit stream on real servers: numbered without a gap, signed, and nobody takes an event from it unseen."""

import asyncio
import json
import shutil
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from constitution.api import AuditEvent, WorkflowRef
from constitution.audit_head import AuditHead
from constitution.checksum import checksum_of
from constitution.errors import UnavailableError
from constitution.names import Names
from constitution.release import Envelope
from services.constitution_service import spool
from services.constitution_service.audit.audit_events import SpooledEvent
from services.constitution_service.audit.refusals import ANONYMOUS_AT_ONCE
from signatures.audit_chain import seal, sign_head, verify_head
from signatures.audit_verify import AuditReport, verify_stream
from signatures.dsse import statement_bytes
from tests.helpers import eventually
from tests.integration.disaster import Disaster
from tests.resources import Database
from tests.world.author import Author
from tests.world.environment import serving
from tests.world.files import ENVIRONMENT, EnvironmentFiles
from tests.world.processes import Service, run_constitution
from tests.world.readings import Topics


def report_of(number: int) -> AuditEvent:
    return AuditEvent(
        id=f"reported-{number}-{uuid4()}",
        update_id="",
        workflow=WorkflowRef(workflow_id="", run_id=""),
        activity="test.reported",
        success=True,
        message=f"event {number}",
    )


async def tell(author: Author, count: int) -> set[str]:
    """Have events audited, many at a time; their ids."""
    events = [report_of(number) for number in range(count)]
    await asyncio.gather(*(author.worker.audit(event) for event in events))
    return {event.id for event in events}


async def told(topics: Topics, ids: set[str]) -> list[bytes]:
    """The whole topic, once it holds these events."""

    async def there() -> list[bytes]:
        records = [record.value for record in await topics.audit()]
        assert ids <= {value["metadata"]["uid"] for value in records}
        return [statement_bytes(value) for value in records]

    return await eventually(there, timedelta(seconds=30))


def newest(settings: dict[str, str]) -> Path:
    store = Path(settings["ARTIFACT_STORE_URL"].removeprefix("file://"))
    return store / "audit" / settings["NAMESPACE"] / ENVIRONMENT / "newest.json"


def checked(records: list[bytes], files: EnvironmentFiles, settings: dict[str, str]) -> AuditReport:
    head = Envelope.model_validate_json(newest(settings).read_bytes())
    return verify_stream(records, [head], files.trust)


def uids(records: list[bytes]) -> list[str]:
    return [json.loads(record)["metadata"]["uid"] for record in records]


def verify(settings: dict[str, str], *arguments: str) -> tuple[int, dict[str, Any], str]:
    """`constitution audit verify`, piped."""
    code, out, error = run_constitution(settings, "audit", "verify", *arguments)
    return code, json.loads(out) if out else {}, error


async def test_the_topic_is_verified_from_the_command_line_and_each_attack_on_it_is_named(
    *,
    author: Author,
    constitution_service: Service,
    service_settings: dict[str, str],
    topics: Topics,
    names: Names,
    kafka_configuration: dict[str, Any],
    tmp_path: Path,
) -> None:
    settings = {**service_settings, "CONSTITUTION_SERVICE_URL": constitution_service.url}
    trust = author.files.trust
    await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    records = await told(topics, await tell(author, 5))
    count = len(records)

    code, report, error = await asyncio.to_thread(verify, settings)
    assert (code, report["complete"], report["last"], report["unnumbered"]) == (0, True, count, 0), (report, error)
    assert report["head"]["sequence"] == count
    head = verify_head(await author.worker.audit_head(), trust)
    assert (head.sequence, head.hash) == (count, checksum_of(records[-1]))
    kept = sorted((newest(service_settings).parent / "heads").iterdir())
    assert kept, "a head is kept with a release"
    assert verify_head(Envelope.model_validate_json(kept[-1].read_bytes()), trust).sequence <= count

    # offline, from a file, with the store's heads
    file = tmp_path / "events.ndjson"
    offline = {name: settings[name] for name in ("ENVIRONMENT_FILE",)}

    def of_file(kept: list[bytes], *heads: Path) -> tuple[int, list[str]]:
        file.write_bytes(b"".join(record + b"\n" for record in kept))
        arguments = [argument for path in heads for argument in ("--head", str(path))]
        code, report, error = verify(offline, "--file", str(file), *arguments)
        return code, [finding["code"] for finding in report["findings"]] if report else [error]

    folder = newest(service_settings).parent
    changed = records[3].replace(b'"severity"', b'"severity_"')
    assert changed != records[3]
    forged = folder / "forged.json"
    strange = sign_head(
        AuditHead(environment=ENVIRONMENT, sequence=3, hash=checksum_of(records[2]), time=head.time),
        "constitution-service",
        Ed25519PrivateKey.generate(),
    )
    forged.write_text(strange.model_dump_json())
    attacks = {
        "nothing": (records, (folder,), (0, [])),
        "deleted in the middle": ([*records[:2], *records[4:]], (folder,), (1, ["missing"])),
        "changed": ([*records[:3], changed, *records[4:]], (folder,), (1, ["changed"])),
        "reordered": ([*records[:2], records[3], records[2], *records[4:]], (folder,), (1, ["out-of-order"])),
        "newest deleted": (records[:-2], (folder,), (1, ["newest-missing"])),
        "forged head": (records, (folder, forged), (1, ["head-untrusted"])),
    }
    for name, (kept_records, heads, expected) in attacks.items():
        assert await asyncio.to_thread(of_file, kept_records, *heads) == expected, name

    # somebody adds an event to the topic: it follows, and the service has not signed it
    added = seal(records[-1].decode(), count + 1, checksum_of(records[-1]))
    producer = Producer(kafka_configuration)
    producer.produce(names.topic_audit(), value=added)
    assert await asyncio.to_thread(producer.flush, 20) == 0
    code, report, error = await asyncio.to_thread(verify, settings)
    assert (code, [finding["code"] for finding in report["findings"]]) == (1, ["unsigned"]), error
    # the topic itself is cut: its oldest records deleted, as an administrator of Kafka can
    admin = AdminClient(kafka_configuration)
    cut = admin.delete_records([TopicPartition(names.topic_audit(), 0, 3)])
    await asyncio.to_thread(lambda: [one.result(20) for one in cut.values()])
    code, report, _ = await asyncio.to_thread(verify, settings)
    assert (code, [finding["code"] for finding in report["findings"]]) == (1, ["unsigned", "missing"])
    await asyncio.to_thread(lambda: [one.result(20) for one in admin.delete_topics([names.topic_audit()]).values()])
    code, report, error = await asyncio.to_thread(verify, settings)
    assert (code, [finding["code"] for finding in report["findings"]]) == (1, ["newest-missing"]), error


@pytest.fixture
async def second(
    environment_files: EnvironmentFiles, service_settings: dict[str, str], tmp_path: Path
) -> AsyncIterator[Service]:
    """A second process of the service, beside the first."""
    async with serving(environment_files, service_settings, tmp_path / "second.log") as beside:
        yield beside.service


@pytest.mark.slow
async def test_two_processes_that_relay_in_turn_leave_no_gap_and_no_fork(
    *,
    author: Author,
    constitution_service: Service,
    second: Service,
    service_settings: dict[str, str],
    topics: Topics,
) -> None:
    other = Author(author.files, second.url)
    ids: set[str] = set()
    try:
        for turn in range(3):
            telling = asyncio.create_task(tell(other, 250))  # more than a batch
            await asyncio.sleep(0.05 * turn)  # at another moment of a batch each time
            constitution_service.kill()
            ids |= await telling
            await constitution_service.start().ready()
            ids |= await tell(author, 100)
            second.send(signal.SIGSTOP)  # longer than a term: the first takes over, then this one wakes
            ids |= await tell(author, 100)
            await told(topics, ids)
            second.send(signal.SIGCONT)
    finally:
        second.send(signal.SIGCONT)
        await other.aclose()

    records = await told(topics, ids)
    report = checked(records, author.files, service_settings)
    assert report.complete, report.findings
    assert report.first == 1
    numbered = {json.loads(record)["metadata"]["sequence"]: record for record in records}
    assert sorted(numbered) == list(range(1, len(numbered) + 1))
    assert set(uids(records)) >= ids
    assert len(set(uids(records))) == len(numbered), "no event got two numbers"


async def test_a_store_that_is_silent_delays_no_stream_and_gets_the_head_later(
    author: Author, service_settings: dict[str, str], topics: Topics
) -> None:
    await told(topics, await tell(author, 1))
    store = newest(service_settings).parents[3]
    away = store.with_name("away")
    store.rename(away)
    store.write_text("no folder")  # nothing can be written below it
    records = await told(topics, await tell(author, 3))
    store.unlink()
    away.rename(store)

    async def there() -> bool:
        return checked(records, author.files, service_settings).head.sequence == len(records)  # type: ignore[union-attr]

    await eventually(there, timedelta(seconds=30))
    assert checked(records, author.files, service_settings).complete


async def test_after_an_older_backup_the_stream_goes_on_behind_the_stores_head_and_says_so(
    disaster: Disaster, topics: Topics
) -> None:
    author = disaster.author
    before = await told(topics, await tell(author, 3))
    await disaster.back_up()
    lost = await told(topics, await tell(author, 4))
    disaster.service.kill()
    await disaster.restore()
    await disaster.service.start().ready()
    records = await told(topics, await tell(author, 2))

    report = checked(records, author.files, disaster.settings)
    assert report.complete, report.findings
    assert [record for record in records if record in lost] == lost, "what was told before the loss is part of it"
    said = [json.loads(record) for record in records]
    (continued,) = [event for event in said if event["api"]["operation"] == "audit.continued"]
    assert continued["metadata"]["sequence"] > len(lost)
    assert (continued["unmapped"]["known"], continued["unmapped"]["stored"]) == (len(before), len(lost))
    assert continued["severity"] == "High"


@pytest.mark.slow
async def test_without_the_stores_head_such_a_restore_is_a_fork_that_is_named(
    disaster: Disaster, topics: Topics
) -> None:
    """What the head in the store is for."""
    author = disaster.author
    await told(topics, await tell(author, 3))
    await disaster.back_up()
    lost = await told(topics, await tell(author, 4))
    archived = Envelope.model_validate_json(newest(disaster.settings).read_bytes())
    disaster.service.kill()
    await disaster.restore()
    shutil.rmtree(newest(disaster.settings).parent)
    await disaster.service.start().ready()
    records = await told(topics, await tell(author, 6))

    report = verify_stream(records, [archived], author.files.trust)
    assert "forged" in {finding.code for finding in report.findings}, report
    assert report.last >= len(lost)


async def test_nobody_deletes_or_changes_a_row_of_the_chain(author: Author, database: Database, topics: Topics) -> None:
    await told(topics, await tell(author, 2))
    for url in (database.url, database.owner_url):
        connection = await asyncpg.connect(url)
        try:
            for statement in (
                "DELETE FROM audit_chain WHERE sequence = 2",
                "UPDATE audit_chain SET value = '{}' WHERE sequence = 1",
                "DELETE FROM audit_heads",
                "INSERT INTO audit_chain SELECT environment, 9, outbox_id, previous, hash, value FROM audit_chain",
                "INSERT INTO audit_chain SELECT environment, 3, outbox_id, previous, hash, '{}' FROM audit_chain",
                "INSERT INTO audit_heads SELECT environment, 1, hash, kept, envelope FROM audit_heads",
            ):
                with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.IntegrityConstraintViolationError)):
                    await connection.execute(statement)
        finally:
            await connection.close()


@pytest.mark.slow
async def test_refusals_beyond_the_anonymous_budget_are_counted(author: Author, constitution_service: Service) -> None:
    calls = int(ANONYMOUS_AT_ONCE) + 100
    for _ in range(calls // 20):
        await asyncio.gather(*(author.http.post("/v1/constitution/lease", json={}) for _ in range(20)))

    assert await constitution_service.metric("constitution_audit_suppressed_total") >= 1
    refused = await constitution_service.metric("constitution_refusals_total", code="forbidden")
    assert refused == calls, "each is counted, written or not"


@pytest.mark.slow
async def test_an_event_that_neither_postgres_nor_the_spool_takes_is_counted_and_its_reporter_is_told(
    *,
    author: Author,
    constitution_service: Service,
    database: Database,
    postgres_settings: dict[str, str],
    service_settings: dict[str, str],
) -> None:
    folder = Path(service_settings["SPOOL_DIRECTORY"])
    waiting = SpooledEvent(event=report_of(0), time=datetime.now(UTC)).model_dump_json()
    name = database.url.partition("?")[0].rpartition("/")[2]
    admin = await asyncpg.connect(postgres_settings["DATABASE_ADMIN_URL"])
    try:
        await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
        for number in range(spool.CAPACITY):
            (folder / f"{number:020d}-full.json").write_text(waiting)
        with pytest.raises(UnavailableError, match="neither to PostgreSQL nor to the spool"):
            await author.worker.audit(report_of(1))
        assert await constitution_service.metric("constitution_audit_dropped_total") >= 1
        assert constitution_service.events("audit_event_lost")
        shutil.rmtree(folder)
        folder.mkdir()  # noqa: ASYNC240 - a local folder
        (folder / "torn.json").write_text('{"event":')

        async def counted() -> bool:
            return await constitution_service.metric("constitution_audit_unreadable_total") == 1

        await eventually(counted)
        assert (folder / "torn.unreadable").is_file()
    finally:
        await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        await admin.close()
