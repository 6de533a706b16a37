"""The forwarder as a process between a real broker and real sinks: nothing lost, nothing believed that is forged."""

import asyncio
import base64
import contextlib
import json
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from constitution.api import AuditEvent, WorkflowRef
from constitution.events import UpdatedEvent, ocsf_event, updated_headers
from constitution.names import Names
from constitution.release import CurrentConstitution
from services.siem_forwarder.ocsf_schema import OcsfSchema
from tests.helpers import eventually, whole_lines
from tests.world.author import NO_UPDATE, Forger
from tests.world.documents import document
from tests.world.environment import ServiceEnvironment
from tests.world.files import ENVIRONMENT, TENANTS, EnvironmentFiles
from tests.world.processes import Service

SCHEMA = OcsfSchema()
Start = Callable[..., Service]
Headers = list[tuple[str, str | bytes | None]]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> EnvironmentFiles:
    return EnvironmentFiles.make(tmp_path_factory.mktemp("environment") / "files")


@pytest.fixture
def forger(files: EnvironmentFiles) -> Forger:
    """Who writes records about releases to the topic without having made any: also with the service's own key."""
    return Forger(files)


@pytest.fixture
def names(namespace: str, kafka_configuration: dict[str, Any]) -> Names:
    """Of a namespace whose two topics are there."""
    names = Names(namespace)
    admin = AdminClient(kafka_configuration)  # kept in a name: its futures end with it
    topics = [NewTopic(t, num_partitions=1, replication_factor=1) for t in (names.topic_updated(), names.topic_audit())]
    for future in admin.create_topics(topics).values():
        future.result(20)
    return names


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "siem" / "events.ndjson"


@pytest.fixture
def start(files: EnvironmentFiles, names: Names, kafka: dict[str, str], file: Path, tmp_path: Path) -> Iterator[Start]:
    forwarders: list[Service] = []

    def start(**settings: str) -> Service:
        forwarder = Service(
            "siem_forwarder",
            {
                "NAMESPACE": names.namespace,
                "ENVIRONMENT_FILE": str(files.environment_file),
                "SIEM_SINK": "ndjson",
                "SIEM_FILE": str(file),
                **kafka,
                **settings,
            },
            tmp_path / f"forwarder-{len(forwarders)}.log",
        )
        forwarders.append(forwarder.start())
        return forwarder

    yield start
    for forwarder in forwarders:
        forwarder.kill()


class Broker:
    """Writes to the topics as anybody with the broker's password could, and reads the group's offsets."""

    def __init__(self, configuration: dict[str, Any], names: Names) -> None:
        self.names = names
        self._producer = Producer({**configuration, "log_level": 0})
        group = names.group("siem")
        self._reader = Consumer({**configuration, "group.id": group, "enable.auto.commit": False})  # it never joins

    def write(self, topic: str, value: bytes | None, headers: Headers | None = None) -> int:
        """Return the record's offset."""
        offsets: list[int] = []

        def delivered(error: object, message: Any) -> None:
            assert error is None, error
            offsets.append(message.offset())

        self._producer.produce(topic, value=value, key=b"global", headers=headers or [], on_delivery=delivered)
        assert self._producer.flush(20) == 0
        return offsets[0]

    def audit(self, identifier: str, **changes: object) -> int:
        return self.write(self.names.topic_audit(), json.dumps({**audit_event(identifier), **changes}).encode())

    def committed(self, topic: str) -> int:
        (found,) = self._reader.committed([TopicPartition(topic, 0)], timeout=20)
        return int(found.offset)


@pytest.fixture
def broker(kafka_configuration: dict[str, Any], names: Names) -> Broker:
    return Broker(kafka_configuration, names)


def audit_event(identifier: str) -> dict[str, Any]:
    event = AuditEvent(
        id=identifier,
        update_id="",
        workflow=WorkflowRef(workflow_id="", run_id=""),
        activity="update.completed",
        success=True,
        message="a thing happened",
    )
    return ocsf_event(event, environment=ENVIRONMENT, time=datetime.now(UTC))


def updated(current: CurrentConstitution, tenant: str = "global", **changes: Any) -> tuple[bytes, Headers]:
    """The record that constitution-service writes about a release."""
    event = UpdatedEvent(
        tenant=tenant,
        environment=current.environment,
        rings=("default",),
        generation=current.generation,
        kind=current.kind,
        version=current.version,
        checksum=current.checksum,
        previous=None,
        effective_at=current.effective_at,
        summary="what changed",
        approvers=("alva", "bruno"),
        update_id=NO_UPDATE,
        workflow_id="w",
        run_id="r",
        statement=current.statement,
    )
    headers = updated_headers(event, f"1b4e28ba-2fa1-4d3c-883f-0016d3cca427:{tenant}")
    value = {**event.model_dump(mode="json"), **changes}
    return json.dumps(value).encode(), [(name, text.encode()) for name, text in headers.items()]


def events_in(file: Path) -> list[dict[str, Any]]:
    """Every event that was written; each is valid OCSF."""
    events = [json.loads(line) for line in whole_lines(file)]
    for event in events:
        assert SCHEMA.problems(event) == ()
    return events


def uids(file: Path) -> list[str]:
    return [event["metadata"]["uid"] for event in events_in(file)]


class TestWithConstitutionService:
    async def test_a_release_and_its_decisions_reach_the_siem(
        self, service_environment: ServiceEnvironment, start: Start, broker: Broker, file: Path
    ) -> None:
        author = service_environment.author
        forwarder = await start(ENVIRONMENT_FILE=str(author.files.environment_file)).ready()
        loaded, _ = await author.publish(document("1.0.0"))
        wanted = {f"{loaded.event_id}:{tenant}" for tenant in TENANTS}

        def arrived() -> bool:
            events = events_in(file)
            operations = {event["api"]["operation"] for event in events if "api" in event}
            told = {event["metadata"]["uid"] for event in events}
            assert wanted <= told
            assert {"artifact.pushed", "constitution.updated", "lease.acquired"} <= operations, operations
            loads = [event for event in events if event.get("api", {}).get("operation") == "release.loaded"]
            counted = {(event["activity_id"], event["severity"]) for event in loads}
            assert counted == {(99, "Informational")}, "it has a number; constitution.updated is what counts"
            return True

        await eventually(arrived)
        release = next(event for event in events_in(file) if event["metadata"]["uid"] in wanted)
        assert release["class_uid"] == 6003
        assert release["unmapped"]["checksum"] == loaded.checksum
        assert release["unmapped"]["generation"] == 1
        assert await forwarder.metric("siem_forwarder_quarantined_total") == 0
        delivered = (await author.worker.release(1)).delivery.events
        assert len(delivered) == 2

        def passed() -> bool:
            offset = broker.committed(broker.names.topic_updated())
            return all(offset > event.offset for event in delivered)

        await eventually(passed)
        assert forwarder.stop() == 0


class TestBelief:
    async def test_a_genuine_event_becomes_api_activity(
        self, start: Start, broker: Broker, names: Names, forger: Forger, file: Path
    ) -> None:
        await start().ready()
        current = forger.current(3, document("1.0.0"))
        value, headers = updated(current)
        broker.write(names.topic_updated(), value, headers)
        await eventually(lambda: len(events_in(file)) == 1)
        event = events_in(file)[0]
        assert event["type_uid"] == 600303
        assert event["metadata"]["uid"] == "1b4e28ba-2fa1-4d3c-883f-0016d3cca427:global"
        assert event["time"] == int(current.effective_at.timestamp() * 1000)
        assert event["unmapped"]["approvers"] == ["alva", "bruno"]
        assert "3" in event["message"]

    async def test_hostile_records_become_findings_with_their_bytes_and_never_block(
        self, start: Start, broker: Broker, names: Names, forger: Forger, file: Path
    ) -> None:
        forwarder = await start().ready()
        current = forger.current(3, document("1.0.0"))
        _, headers = updated(current)
        forged = forger.current(4, document("1.1.0"), signing_key=forger.stranger)
        foreign = forger.current(4, document("1.1.0", environment="production"), environment="production")
        hostile: list[tuple[str, bytes | None, Headers]] = [
            (names.topic_updated(), None, []),
            (names.topic_updated(), b"", headers),
            (names.topic_updated(), b"\xff\x00", headers),
            (names.topic_updated(), b"[" * 100_000, headers),
            (names.topic_updated(), b'{"a": 1, "a": 2}', headers),
            (names.topic_updated(), b"x" * 900_000, headers),
            (names.topic_updated(), updated(forged)[0], headers),
            (names.topic_updated(), updated(foreign)[0], headers),
            (names.topic_updated(), updated(current, generation=9)[0], headers),
            (names.topic_updated(), updated(current, checksum="sha256:" + "0" * 64)[0], headers),
            (names.topic_updated(), updated(current)[0], []),
            (names.topic_updated(), updated(current)[0], [("ce_type", b"\xff"), ("ce_id", b"\xfe")]),
            (names.topic_updated(), updated(current, tenant="acme")[0], headers),
            (names.topic_audit(), b"null", []),
            (names.topic_audit(), b'{"class_uid": 6003}', []),
            (names.topic_audit(), json.dumps({**audit_event("x"), "surprise": 1}).encode(), []),
            (names.topic_audit(), json.dumps({**audit_event("x"), "time": "now"}).encode(), []),
        ]
        written = [(topic, broker.write(topic, value, head), value) for topic, value, head in hostile]
        broker.write(names.topic_updated(), *updated(current))
        broker.audit("after-all")
        await eventually(lambda: len(events_in(file)) == len(hostile) + 2)
        by_uid = {event["metadata"]["uid"]: event for event in events_in(file)}
        for topic, offset, value in written:
            event = by_uid[f"quarantine:{topic}:0:{offset}"]
            assert event["class_uid"] == 2004
            raw = base64.b64decode(event["raw_data"])
            assert raw == (value or b"")[: 64 * 1024]
        assert "after-all" in by_uid
        assert await forwarder.metric("siem_forwarder_quarantined_total") == len(hostile)
        topics = (names.topic_updated(), names.topic_audit())
        await eventually(lambda: all(broker.committed(topic) > 0 for topic in topics))

    async def test_an_audit_event_is_passed_on_as_it_is(self, start: Start, broker: Broker, file: Path) -> None:
        await start().ready()
        event = audit_event("kept")
        broker.write(broker.names.topic_audit(), json.dumps(event).encode())
        await eventually(lambda: events_in(file) == [event])

    async def test_an_aborted_transaction_is_not_forwarded(
        self, start: Start, broker: Broker, kafka_configuration: dict[str, Any], file: Path
    ) -> None:
        await start().ready()
        producer = Producer({**kafka_configuration, "transactional.id": f"{broker.names.namespace}-aborts"})
        producer.init_transactions(20)
        producer.begin_transaction()
        producer.produce(broker.names.topic_audit(), value=json.dumps(audit_event("aborted")).encode())
        producer.flush(20)
        producer.abort_transaction(20)
        broker.audit("committed")
        await eventually(lambda: uids(file) == ["committed"])


class TestNothingIsLost:
    async def test_a_restarted_forwarder_goes_on_where_it_had_committed(
        self, start: Start, broker: Broker, file: Path
    ) -> None:
        forwarder = await start().ready()
        broker.audit("one")
        await eventually(lambda: broker.committed(broker.names.topic_audit()) > 0)
        assert forwarder.stop() == 0
        broker.audit("two")
        await start().ready()
        await eventually(lambda: uids(file) == ["one", "two"])

    async def test_what_came_before_the_first_start_is_forwarded(
        self, start: Start, broker: Broker, file: Path
    ) -> None:
        for number in range(700):  # more than one batch
            broker.audit(f"e{number}")
        forwarder = await start().ready()
        await eventually(lambda: uids(file) == [f"e{number}" for number in range(700)])

        async def nothing_ahead() -> bool:
            return await forwarder.metric("siem_forwarder_backlog_offsets", topic=broker.names.topic_audit()) == 0

        await eventually(nothing_ahead)

    async def test_killed_between_acknowledgement_and_commit_sends_again_with_the_same_uid(
        self, start: Start, broker: Broker
    ) -> None:
        """The receiver kills the forwarder when it has the events, before the forwarder can know that it has."""
        async with siem() as receiver:
            forwarder = await start(SIEM_SINK="http", SIEM_HTTP_URL=receiver.url).ready()
            receiver.before_answer = lambda: os.kill(forwarder.pid, signal.SIGKILL)
            broker.audit("survives")
            await eventually(lambda: receiver.uids() == ["survives"])
            assert forwarder.process is not None
            assert forwarder.process.wait(20) == -signal.SIGKILL
            assert broker.committed(broker.names.topic_audit()) < 0
            receiver.before_answer = lambda: None
            await forwarder.start().ready()
            broker.audit("next")
            await eventually(lambda: receiver.uids() == ["survives", "survives", "next"])

    @pytest.mark.slow
    async def test_killed_at_any_moment_loses_nothing(self, start: Start, broker: Broker, file: Path) -> None:
        forwarder = await start().ready()
        total = 0
        for _ in range(3):
            for _ in range(40):
                broker.audit(f"e{total}")
                total += 1
            await eventually(lambda: len(events_in(file)) > 0)
            forwarder.kill()
            await forwarder.start().healthy()
        wanted = {f"e{number}" for number in range(total)}
        await eventually(lambda: set(uids(file)) == wanted)

    async def test_a_full_disk_is_waited_for(self, start: Start, broker: Broker, file: Path) -> None:
        _fill_the_disk(file)
        forwarder = await start().healthy()
        broker.audit("waits")

        async def says_so() -> bool:
            assert await forwarder.metric("siem_forwarder_sink_failures_total") >= 2
            assert await forwarder.metric("siem_forwarder_sink_up") == 0
            return await status(forwarder) == (503, "unavailable")

        await eventually(says_so)
        assert broker.committed(broker.names.topic_audit()) < 0
        os.unlink(file)  # noqa: PTH108 - one system call, in a coroutine
        await forwarder.ready()
        await eventually(lambda: uids(file) == ["waits"])


def _fill_the_disk(file: Path) -> None:
    file.parent.mkdir()
    file.symlink_to("/dev/full")


class TestSinks:
    async def test_http_posts_ndjson_with_its_token_and_waits_for_2xx(self, start: Start, broker: Broker) -> None:
        async with siem() as receiver:
            receiver.status = 503
            forwarder = await start(
                SIEM_SINK="http",
                SIEM_HTTP_URL=receiver.url,
                SIEM_HTTP_TOKEN="s3cret",  # noqa: S106 - of this test
            ).healthy()
            broker.audit("posted")
            await eventually(lambda: len(receiver.requests) >= 2)
            assert await status(forwarder) == (503, "unavailable")
            assert broker.committed(broker.names.topic_audit()) < 0
            receiver.status = 202
            await forwarder.ready()
            await eventually(lambda: broker.committed(broker.names.topic_audit()) > 0)
            headers, body = receiver.requests[-1]
            assert headers["authorization"] == "Bearer s3cret"
            assert headers["content-type"] == "application/x-ndjson"
            assert SCHEMA.problems(json.loads(body)) == ()
            assert "s3cret" not in forwarder.output()

    async def test_syslog_by_octet_counting(self, start: Start, broker: Broker) -> None:
        received: list[bytes] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    length = int((await reader.readuntil(b" ")).decode())
                    received.append(await reader.readexactly(length))
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        forwarder = await start(SIEM_SINK="syslog", SIEM_SYSLOG_ADDRESS=address).ready()
        broker.audit("logged")
        await eventually(lambda: len(received) == 1)
        assert received[0].startswith(b"<110>1 ")
        assert json.loads(received[0].partition(b" - ")[2])["metadata"]["uid"] == "logged"
        await eventually(lambda: broker.committed(broker.names.topic_audit()) > 0)
        assert forwarder.stop() == 0
        server.close()
        await server.wait_closed()

    @pytest.mark.parametrize("sink", ["ndjson", "syslog", "http"])
    async def test_a_sink_without_its_address_is_a_settings_error(
        self, files: EnvironmentFiles, tmp_path: Path, sink: str
    ) -> None:
        settings = {
            "ENVIRONMENT_FILE": str(files.environment_file),
            "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
            "SIEM_SINK": sink,
        }
        forwarder = Service("siem_forwarder", settings, tmp_path / "log").start()
        assert forwarder.process is not None
        assert forwarder.process.wait(30) == 2
        assert f"SIEM_SINK={sink} needs SIEM_" in forwarder.output()


async def status(forwarder: Service) -> tuple[int, str]:
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.get(f"{forwarder.url}/readyz")
    return answer.status_code, answer.json()["status"]


class Siem:
    """A SIEM's HTTP endpoint: keeps what it is sent, then answers."""

    def __init__(self) -> None:
        self.status = 200
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.before_answer: Callable[[], None] = lambda: None
        self.url = ""

    def uids(self) -> list[str]:
        return [json.loads(line)["metadata"]["uid"] for _, body in self.requests for line in body.splitlines()]


@contextlib.asynccontextmanager
async def siem() -> AsyncIterator[Siem]:
    receiver = Siem()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.requests.append(({name.lower(): value for name, value in self.headers.items()}, body))
            receiver.before_answer()
            with contextlib.suppress(ConnectionError):
                self.send_response(receiver.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_port}/events"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
