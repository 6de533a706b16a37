"""The policy engine as a process: what it obeys, what it refuses, how it decides.

It follows a real constitution-service, and what is live there was really released. Attackers and faults are on the wire
between the two (`Wire`), on the topic, or in the cache: what a `Forger` has signed, no service has said.
"""

import json
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import redis.asyncio
from confluent_kafka import Producer

from constitution.api import Problem
from constitution.checksum import checksum_of
from constitution.policy.document import parse
from constitution.policy.evaluation import EvaluationRequest, PolicyDecision
from constitution.policy.rules import Policy
from constitution.release import CurrentConstitution
from tests.helpers import eventually
from tests.ports import free_port
from tests.world.author import Author, Forger, event_of
from tests.world.documents import NOON, VECTORS, document, rule, soon
from tests.world.environment import ServiceEnvironment
from tests.world.processes import Service
from tests.world.wire import Fault, Wire

FAST = {"POLL_SECONDS": "0.2"}
NEVER = {"POLL_SECONDS": "3600"}
READING = {"tenant": "global", "action": "read", "time": NOON}

StartEngine = Callable[..., Service]


@pytest.fixture
def author(shared_environment: ServiceEnvironment) -> Author:
    """Who releases what the module's engines follow."""
    return shared_environment.author


@pytest.fixture
def forger(shared_environment: ServiceEnvironment) -> Forger:
    return Forger(shared_environment.files)


@pytest.fixture
def wire(shared_environment: ServiceEnvironment) -> Iterator[Wire]:
    """From the test's engine to constitution-service."""
    wire = Wire(shared_environment.service.url)
    yield wire
    wire.close()


@pytest.fixture
def start_engine(shared_environment: ServiceEnvironment, wire: Wire, tmp_path: Path) -> Iterator[StartEngine]:
    """Start an engine that nobody's consumer group knows yet."""
    engines: list[Service] = []

    def start(followed: ServiceEnvironment = shared_environment, **settings: str) -> Service:
        url = {"CONSTITUTION_SERVICE_URL": wire.url} if followed is shared_environment else {}
        target = f"engine-{uuid4().hex[:8]}"
        given = followed.consumer_settings(target, **{**url, **FAST, **settings})
        engines.append(Service("policy_engine", given, tmp_path / f"engine-{len(engines)}.log").start())
        return engines[-1]

    yield start
    for engine in engines:
        engine.kill()


@pytest.fixture
def no_kafka() -> dict[str, str]:
    """Settings that lead to a broker that does not answer."""
    return {"KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}"}


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        yield client


def saying(current: CurrentConstitution, etag: str = "") -> Fault:
    """An answer on the wire that is not the service's own, or not of now."""
    return Fault(body=current.model_dump_json().encode(), etag=etag)


def tell(configuration: dict[str, Any], topic: str, value: bytes) -> None:
    """Write to the topic, as anybody with the broker's password could."""
    producer = Producer({**configuration, "log_level": 0})
    producer.produce(topic, value=value, key=b"global")
    assert producer.flush(20) == 0


async def obeys(engine: Service, current: CurrentConstitution) -> bool:
    status = await engine.policy()
    assert (status.generation, status.checksum) == (current.generation, current.checksum), status
    return True


@pytest.fixture
async def live(author: Author) -> CurrentConstitution:
    """What is live; the first test that asks releases something."""
    return await author.current() or await author.released()


class TestBeforeAnything:
    async def test_it_serves_nothing_until_it_has_read_current(
        self, start_engine: StartEngine, wire: Wire, http: httpx.AsyncClient, live: CurrentConstitution
    ) -> None:
        wire.be(Fault(status=500, body=b"gone fishing"))
        engine = await start_engine().healthy()
        answer = await http.post(f"{engine.url}/v1/evaluate", json={"tenant": "global", "time": NOON})
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
        assert (await http.get(f"{engine.url}/readyz")).status_code == 503
        assert (await engine.policy()).state == "starting"
        wire.repair()
        await engine.ready()
        await obeys(engine, live)

    async def test_without_any_release_everything_is_denied_and_no_hash_is_invented(
        self, start_engine: StartEngine, http: httpx.AsyncClient, service_environment: ServiceEnvironment
    ) -> None:
        engine = await start_engine(service_environment).ready()
        answer = (await http.post(f"{engine.url}/v1/evaluate", json={"tenant": "global", "time": NOON})).json()
        assert answer["decision"] == "deny"
        assert answer["reason"] == "no_constitution"
        assert answer["policy_hash"] is None
        assert answer["generation"] == 0
        assert (await http.get(f"{engine.url}/readyz")).json()["status"] == "degraded"

    async def test_a_first_answer_that_is_forged_is_not_served(
        self, start_engine: StartEngine, wire: Wire, forger: Forger, http: httpx.AsyncClient
    ) -> None:
        wire.be(saying(forger.current(1, document("1.0.0"), signing_key=forger.stranger)))
        engine = await start_engine().healthy()

        async def reported() -> bool:
            return "untrusted_value" in str((await engine.policy()).last_error)

        await eventually(reported)
        assert (await http.get(f"{engine.url}/readyz")).status_code == 503

    async def test_bad_settings_are_all_listed_and_nothing_starts(self, tmp_path: Path) -> None:
        engine = Service("policy_engine", {"STALENESS_ACTION": "hope", "RING": "!"}, tmp_path / "log").start()
        assert engine.running.wait(30) == 2
        for name in (
            "STALENESS_ACTION",
            "RING",
            "TARGET_ID",
            "CONSTITUTION_SERVICE_URL",
            "KAFKA_BOOTSTRAP_SERVERS",
            "ENVIRONMENT_FILE",
        ):
            assert name in engine.output()


class TestForgeries:
    """Whatever an attacker on the wire answers without the pinned key changes nothing, is counted, and is said aloud.

    Some of these attackers have the key, and say what the service has not said so: elsewhere, earlier, or twice.
    """

    @pytest.fixture
    async def engine(self, start_engine: StartEngine, live: CurrentConstitution, no_kafka: dict[str, str]) -> Service:
        self.live = live
        engine = await start_engine(**no_kafka).ready()
        await obeys(engine, live)
        return engine

    @property
    def next(self) -> int:
        return self.live.generation + 1

    async def refused(self, engine: Service, reason: str, words: str) -> None:
        before = await engine.metric("policy_engine_following_refused_total", reason=reason)

        async def reported() -> bool:
            assert await engine.metric("policy_engine_following_refused_total", reason=reason) > before
            status = await engine.policy()
            assert reason in str(status.last_error)
            assert words in str(status.last_error)
            return True

        await eventually(reported)
        await obeys(engine, self.live)

    async def test_a_statement_by_another_key(self, engine: Service, wire: Wire, forger: Forger) -> None:
        wire.be(saying(forger.current(self.next, document("9.0.0"), signing_key=forger.stranger)))
        await self.refused(engine, "untrusted_value", "sign")

    async def test_a_statement_by_a_key_that_only_mints_tokens(
        self, engine: Service, wire: Wire, forger: Forger
    ) -> None:
        key = forger.files.key("worker").private_key
        wire.be(saying(forger.current(self.next, document("9.0.0"), signing_key=key, keyid="worker")))
        await self.refused(engine, "untrusted_value", "worker")

    async def test_other_bytes_under_a_good_statement(self, engine: Service, wire: Wire, author: Author) -> None:
        wire.be(saying(self.live))
        good = await author.released()
        assert good.document is not None
        wire.be(saying(good.model_copy(update={"document": good.document.replace("deny", "allow")})))
        await self.refused(engine, "untrusted_value", "bytes")

    async def test_a_document_that_no_maintainer_signed(self, engine: Service, wire: Wire, forger: Forger) -> None:
        wire.be(saying(forger.current(self.next, document("9.0.0"), signers=("alva",))))
        await self.refused(engine, "untrusted_value", "maintainer")

    async def test_another_environment(self, engine: Service, wire: Wire, forger: Forger) -> None:
        other = document("9.0.0", environment="production")
        wire.be(saying(forger.current(self.next, other, environment="production")))
        await self.refused(engine, "untrusted_value", "environment")

    async def test_another_environments_document_under_our_statement(
        self, engine: Service, wire: Wire, forger: Forger
    ) -> None:
        wire.be(saying(forger.current(self.next, document("9.0.0", environment="production"))))
        await self.refused(engine, "untrusted_value", "production")

    async def test_another_ring(self, engine: Service, wire: Wire, forger: Forger) -> None:
        wire.be(saying(forger.current(self.next, document("9.0.0"), ring="canary")))
        await self.refused(engine, "untrusted_value", "canary")

    async def test_a_generation_that_the_statement_does_not_say(self, engine: Service, wire: Wire) -> None:
        wire.be(saying(self.live.model_copy(update={"generation": self.next})))
        await self.refused(engine, "untrusted_value", "generation")

    async def test_an_older_release_that_was_really_signed(self, engine: Service, wire: Wire, author: Author) -> None:
        older, self.live = self.live, await author.released()
        await eventually(lambda: obeys(engine, self.live))
        wire.be(saying(older))
        await self.refused(engine, "untrusted_value", "older")

    async def test_a_second_document_signed_as_the_same_generation(
        self, engine: Service, wire: Wire, forger: Forger
    ) -> None:
        wire.be(saying(forger.current(self.live.generation, document("9.0.0"))))
        await self.refused(engine, "untrusted_value", "two different documents")

    async def test_no_constitution_after_there_was_one(self, engine: Service, wire: Wire) -> None:
        absent = Problem(
            type="urn:somaagenthub:problem:no-constitution",
            title="Not Found",
            status=404,
            code="no-constitution",
            detail="there is no release yet",
        )
        wire.be(Fault(status=404, body=absent.model_dump_json().encode()))
        await self.refused(engine, "unavailable", "no constitution")

    @pytest.mark.parametrize(
        "body",
        [b"", b"{}", b"\xff\xfe", b"[" * 100_000, b"x" * 40_000_000],
        ids=["empty", "{}", "bytes", "deep", "big"],
    )
    async def test_an_answer_that_is_no_answer(self, engine: Service, wire: Wire, body: bytes) -> None:
        wire.be(Fault(body=body))
        await self.refused(engine, "untrusted_value", "")

    async def test_a_genuine_release_after_forgeries_is_obeyed(
        self, engine: Service, wire: Wire, author: Author, forger: Forger
    ) -> None:
        wire.be(saying(forger.current(self.next + 3, document("9.6.6"), signing_key=forger.stranger)))
        await self.refused(engine, "untrusted_value", "sign")
        released = await author.released()
        await obeys(engine, self.live)
        wire.repair()
        await eventually(lambda: obeys(engine, released))


class TestHints:
    @pytest.fixture
    async def hinted(self, start_engine: StartEngine, live: CurrentConstitution, wire: Wire) -> Service:
        """An engine that never polls, and has its partition of the topic."""
        engine = await start_engine(**NEVER).ready()
        await eventually(lambda: len(wire.requests) >= 2)  # at the start, and when the group had its partition
        await obeys(engine, live)
        return engine

    async def test_an_event_brings_the_release_at_once(self, hinted: Service, wire: Wire, author: Author) -> None:
        released = await author.released()
        await eventually(lambda: obeys(hinted, released))
        assert f"min_generation={released.generation}" in wire.requests[-1]

    async def test_forged_events_change_nothing_and_ask_nothing(
        self,
        start_engine: StartEngine,
        service_environment: ServiceEnvironment,
        kafka_configuration: dict[str, Any],
    ) -> None:
        """In an environment of its own, whose topic nobody can trust afterwards."""
        author, names = service_environment.author, service_environment.names
        forger = Forger(service_environment.files)
        older, live = await author.released(), await author.released()
        wire = Wire(service_environment.service.url)
        engine = await start_engine(service_environment, CONSTITUTION_SERVICE_URL=wire.url, **NEVER).ready()
        await eventually(lambda: len(wire.requests) >= 2)
        asked = len(wire.requests)
        refused = 0

        async def all_refused() -> bool:
            reason = {"reason": "untrusted_event"}
            return await engine.metric("policy_engine_following_refused_total", **reason) == refused

        for value in (
            event_of(forger.current(99, document("9.9.9"), signing_key=forger.stranger)),
            event_of(live, generation=99),
            event_of(forger.current(99, document("9.9.9", environment="production"), environment="production")),
            b"",
            b"\xff",
            b"[" * 5000,
            b'{"statement": null, "generation": 6}',
            json.dumps({"generation": 99}).encode(),
        ):
            tell(kafka_configuration, names.topic_updated(), value)
            refused += 1
        await eventually(all_refused)
        assert "untrusted_event" in str((await engine.policy()).last_error)
        await obeys(engine, live)
        assert len(wire.requests) == asked
        # Signed, but old, or of another ring: nothing to do, and nothing to complain of.
        tell(kafka_configuration, names.topic_updated(), event_of(older))
        released = await author.released()
        await eventually(lambda: obeys(engine, released))
        assert len(wire.requests) == asked + 1
        canary = forger.current(released.generation + 1, document("9.9.9"), ring="canary")
        tell(kafka_configuration, names.topic_updated(), event_of(canary))
        tell(kafka_configuration, names.topic_updated(), b"")
        refused += 1
        await eventually(all_refused)
        await obeys(engine, released)
        assert len(wire.requests) == asked + 1
        wire.close()

    async def test_a_service_that_answers_below_a_signed_event_is_no_contact(
        self, start_engine: StartEngine, wire: Wire, author: Author, live: CurrentConstitution
    ) -> None:
        """Somebody on the wire freezes us on an old release: the signed event gives it away."""
        wire.be(saying(live, etag='"frozen"'))
        engine = await start_engine(MAX_STALENESS_SECONDS="2").ready()
        await eventually(lambda: len(wire.requests) >= 4)
        await author.released()

        async def stale() -> bool:
            return (await engine.policy()).state == "stale"

        await eventually(stale)
        await obeys(engine, live)

    async def test_kafka_down_delays_but_does_not_prevent(
        self, start_engine: StartEngine, author: Author, no_kafka: dict[str, str], http: httpx.AsyncClient
    ) -> None:
        engine = await start_engine(**no_kafka).healthy()

        async def says_so() -> bool:
            report = (await http.get(f"{engine.url}/readyz")).json()
            return bool(report["status"] == "degraded" and report["checks"]["kafka"] != "ok")

        await eventually(says_so)
        released = await author.released()
        await eventually(lambda: obeys(engine, released))


@pytest.mark.usefixtures("live")
class TestStalenessAndExpiry:
    async def test_a_silent_service_degrades_by_default(
        self, start_engine: StartEngine, wire: Wire, http: httpx.AsyncClient, no_kafka: dict[str, str]
    ) -> None:
        engine = await start_engine(MAX_STALENESS_SECONDS="1", **no_kafka).ready()
        wire.cut()

        async def stale() -> bool:
            return (await engine.policy()).state == "stale"

        await eventually(stale)
        report = await http.get(f"{engine.url}/readyz")
        assert report.status_code == 200
        assert report.json()["status"] == "degraded"
        assert (await http.post(f"{engine.url}/v1/evaluate", json=READING)).json()["decision"] == "allow"
        wire.repair()

        async def is_live() -> bool:
            return (await engine.policy()).state == "live"

        await eventually(is_live)

    async def test_what_the_service_knew_long_ago_is_a_contact_of_then(
        self, start_engine: StartEngine, wire: Wire, live: CurrentConstitution, no_kafka: dict[str, str]
    ) -> None:
        wire.be(replace(saying(live, etag='"of then"'), age="30"))
        engine = await start_engine(MAX_STALENESS_SECONDS="10", **no_kafka).healthy()

        async def state(expected: str) -> bool:
            return (await engine.policy()).state == expected

        await eventually(lambda: state("stale"))
        await obeys(engine, live)
        asked = len(wire.requests)
        await eventually(lambda: len(wire.requests) > asked + 3)  # 304s of the same age
        assert (await engine.policy()).state == "stale"
        wire.repair()
        await eventually(lambda: state("live"))
        wire.be(replace(saying(live), age="-1"))

        async def says_so() -> bool:
            return "Age is no number" in str((await engine.policy()).last_error)

        await eventually(says_so)

    async def test_a_silent_service_denies_by_setting(
        self,
        start_engine: StartEngine,
        shared_environment: ServiceEnvironment,
        http: httpx.AsyncClient,
        no_kafka: dict[str, str],
    ) -> None:
        settings = {"MAX_STALENESS_SECONDS": "1", "STALENESS_ACTION": "deny"}
        engine = await start_engine(**settings, **no_kafka).ready()
        assert (await http.post(f"{engine.url}/v1/evaluate", json=READING)).json()["decision"] == "allow"

        async def denies() -> bool:
            answer = (await http.post(f"{engine.url}/v1/evaluate", json=READING)).json()
            return bool(answer["decision"] == "deny" and answer["reason"] == "stale")

        shared_environment.service.send(signal.SIGSTOP)  # accepts, and never answers
        try:
            await eventually(denies)
        finally:
            shared_environment.service.send(signal.SIGCONT)

    @pytest.mark.parametrize(
        ("signed", "setting", "decision", "reason"),
        [
            ({}, "enforce", "deny", "expired"),
            ({"on_expiry": "enforce"}, "enforce", "allow", "rule"),
            ({"on_expiry": "require_approval"}, "enforce", "require_approval", "expired"),
            ({"expiry_grace": 3600}, "enforce", "allow", "rule"),
            ({"on_expiry": "enforce", "expiry_grace": 3600}, "deny", "deny", "expired"),
        ],
    )
    async def test_expired_while_live(
        self,
        *,
        signed: dict[str, Any],
        setting: str,
        decision: str,
        reason: str,
        start_engine: StartEngine,
        wire: Wire,
        live: CurrentConstitution,
        forger: Forger,
        http: httpx.AsyncClient,
        no_kafka: dict[str, str],
    ) -> None:
        """The service releases nothing that is about to expire: instead of 90 days, the test signs with its key."""
        text = document("9.0.0", expires_at=soon(seconds=6), **signed)
        wire.be(saying(forger.current(live.generation + 1, text)))
        engine = await start_engine(EXPIRED_ACTION=setting, **no_kafka).ready()

        async def expired() -> bool:
            return (await engine.policy()).state == "expired"

        await eventually(expired)
        assert (await http.get(f"{engine.url}/readyz")).json()["status"] == "degraded"
        answer = (await http.post(f"{engine.url}/v1/evaluate", json=READING)).json()
        assert (answer["decision"], answer["reason"]) == (decision, reason)
        assert answer["policy_hash"] == checksum_of(text)

    async def test_after_a_withdrawal_everything_is_denied(
        self, start_engine: StartEngine, service_environment: ServiceEnvironment, http: httpx.AsyncClient
    ) -> None:
        author = service_environment.author
        first, lease = await author.publish(document("1.0.0"))
        await author.release_lease(lease)
        engine = await start_engine(service_environment).ready()
        assert (await engine.policy()).checksum == first.checksum
        await author.withdraw(first.generation)

        async def withdrawn() -> bool:
            status = await engine.policy()
            assert (status.generation, status.checksum) == (2, None), status
            return True

        await eventually(withdrawn)
        answer = (await http.post(f"{engine.url}/v1/evaluate", json=READING)).json()
        assert (answer["decision"], answer["reason"], answer["policy_hash"]) == ("deny", "no_constitution", None)
        assert answer["generation"] == 2
        assert await engine.metric("policy_engine_constitution_info") == 0


class TestAsking:
    @pytest.fixture
    async def engine(self, start_engine: StartEngine, author: Author, no_kafka: dict[str, str]) -> Service:
        self.live = await author.released()
        assert self.live.document is not None
        self.text = self.live.document.encode()
        return await start_engine(**no_kafka).ready()

    async def test_decides_as_the_domain_does(self, engine: Service, http: httpx.AsyncClient) -> None:
        policy = Policy.compile(parse(self.text))
        requests: list[dict[str, Any]] = [
            {"tenant": "global", "action": "read", "time": NOON},
            {"tenant": "global", "action": "write", "time": NOON},
            {"tenant": "global", "action": "read", "data_class": "secret", "time": NOON},
            {"tenant": "global", "action": "read", "amount": 1000.5, "time": NOON},
            {"tenant": "acme", "action": "read", "time": "2026-11-22T03:00:00Z"},
            {"tenant": "acme", "action": "read", "time": "2026-11-22T03:00:00-08:00"},
            {"tenant": "acme", "action": "divide", "amount": 0.25, "time": NOON},
        ]
        decisions = set()
        for request in requests:
            answer = (await http.post(f"{engine.url}/v1/evaluate", json=request)).json()
            expected = policy.evaluate(EvaluationRequest.model_validate(request)).model_dump(mode="json")
            assert {name: answer[name] for name in expected} == expected
            assert answer["policy_hash"] == checksum_of(self.text)
            assert answer["constitution_version"] == self.live.version
            decisions.add(answer["decision"])
        assert decisions == {"allow", "deny", "require_approval"}
        assert await engine.metric("policy_engine_cel_errors_total") == 1

    async def test_the_short_way_and_the_long_one_give_the_same_answer(
        self, engine: Service, http: httpx.AsyncClient
    ) -> None:
        async def pieces() -> AsyncIterator[bytes]:  # a body without a length is the long way's
            yield json.dumps(question).encode()

        for question in (
            {"tenant": "global", "action": "read", "time": NOON},
            {"tenant": "global", "action": "write", "amount": 3, "prompt": "\u00fc\n", "time": NOON},
        ):
            short = await http.post(f"{engine.url}/v1/evaluate", json=question)
            long = await http.post(
                f"{engine.url}/v1/evaluate", content=pieces(), headers={"Content-Type": "application/json"}
            )
            assert (short.status_code, short.content) == (200, long.content)
            kept = ({k: v for k, v in answer.headers.items() if k != "date"} for answer in (short, long))
            assert next(kept) == next(kept)
        counted = await engine.metric("http_requests_total", method="POST", route="/v1/evaluate", status="200")
        assert counted == 4
        assert await engine.metric("policy_engine_evaluations_total") == 4
        assert await engine.metric("policy_engine_recorded_requests") == 4

    async def test_a_batch_is_decided_by_one_release_in_order(
        self, engine: Service, http: httpx.AsyncClient, author: Author
    ) -> None:
        questions = [{"tenant": "global", "action": action, "time": NOON} for action in ("read", "write", "read")]
        single = [(await http.post(f"{engine.url}/v1/evaluate", json=question)).json() for question in questions]
        batch = await http.post(f"{engine.url}/v1/evaluate/batch", json={"requests": questions})
        assert batch.json() == {"answers": single}
        assert await engine.metric("policy_engine_evaluations_total", tenant="global") == 6
        probe = {"requests": [questions[0], {**questions[0], "tenant": "runbook-probe"}]}
        assert (await http.post(f"{engine.url}/v1/evaluate/batch", json=probe)).status_code == 403
        allowed = await http.post(f"{engine.url}/v1/evaluate/batch", json=probe, headers=author.files.bearer("probe"))
        assert [answer["decision"] for answer in allowed.json()["answers"]] == ["allow", "allow"]
        refusals: tuple[list[Any], ...] = ([], [questions[0]] * 257, [{"tenant": "global"}])
        for refused in refusals:
            assert (await http.post(f"{engine.url}/v1/evaluate/batch", json={"requests": refused})).status_code == 422
        assert await engine.metric("policy_engine_recorded_requests") == 7

    async def test_counts_by_decision_severity_and_configured_tenant(
        self, engine: Service, http: httpx.AsyncClient, author: Author
    ) -> None:
        for tenant in ("global", "acme", "stranger", "stranger-2"):
            question = {"tenant": tenant, "action": "read", "time": NOON}
            assert (await http.post(f"{engine.url}/v1/evaluate", json=question)).status_code == 200
        probe = {"tenant": "runbook-probe", "action": "read", "time": NOON}
        headers = author.files.bearer("probe")
        assert (await http.post(f"{engine.url}/v1/evaluate", json=probe, headers=headers)).status_code == 200
        name, labels = (
            "policy_engine_evaluations_total",
            {"decision": "allow", "severity": "low", "target": (await engine.policy()).target},
        )
        counted = [
            await engine.metric(name, tenant=tenant, **labels)
            for tenant in ("global", "acme", "other", "runbook-probe")
        ]
        assert counted == [1, 1, 2, 1]
        assert await engine.metric(name, tenant="stranger") == 0
        info = {"version": self.live.version or "", "checksum": checksum_of(self.text)}
        info["generation"] = str(self.live.generation)
        assert await engine.metric("policy_engine_constitution_info", **info) == 1

    async def test_the_probe_tenant_needs_the_probe_scope(
        self, engine: Service, http: httpx.AsyncClient, author: Author
    ) -> None:
        probe = {"tenant": "runbook-probe", "time": NOON}
        for headers in (
            {},
            {"Authorization": "Bearer nonsense"},
            {"Authorization": "Basic eDp5"},
            author.files.bearer("policy:refresh"),
            author.files.bearer("probe", environment="production"),
        ):
            answer = await http.post(f"{engine.url}/v1/evaluate", json=probe, headers=headers)
            assert answer.status_code == 403, headers
            assert answer.json()["code"] == "forbidden"
        assert engine.output().count('"probe_refused"') == 5
        assert await engine.metric("policy_engine_evaluations_total") == 0

    async def test_refresh_needs_its_scope_and_reads_and_verifies_now(  # noqa: PLR0917 - fixtures
        self,
        start_engine: StartEngine,
        http: httpx.AsyncClient,
        author: Author,
        forger: Forger,
        wire: Wire,
        live: CurrentConstitution,
        no_kafka: dict[str, str],
    ) -> None:
        engine = await start_engine(**NEVER, **no_kafka).ready()
        assert (await http.post(f"{engine.url}/v1/policy/refresh")).status_code == 403
        wrong = await http.post(f"{engine.url}/v1/policy/refresh", headers=author.files.bearer("probe"))
        assert wrong.status_code == 403
        released = await author.released()
        await obeys(engine, live)
        answer = await http.post(f"{engine.url}/v1/policy/refresh", headers=author.files.bearer("policy:refresh"))
        assert answer.status_code == 200
        assert answer.json()["checksum"] == released.checksum
        wire.be(saying(forger.current(released.generation + 1, document("9.0.0"), signing_key=forger.stranger)))
        answer = await http.post(f"{engine.url}/v1/policy/refresh", headers=author.files.bearer("policy:refresh"))
        assert answer.status_code == 503
        assert "verified" in answer.json()["detail"]
        await obeys(engine, released)

    async def test_bad_input_is_a_problem_and_never_a_defect(self, engine: Service, http: httpx.AsyncClient) -> None:
        bad = {
            b"": 422,
            b"{": 400,
            b"\xff": 400,
            b'{"tenant": "global", "tenant": "acme", "time": "2026-11-22T12:00:00Z"}': 400,
            b'{"tenant": "global"}': 422,
            b'{"tenant": "global", "time": "2026-11-22T12:00:00"}': 422,
            b'{"tenant": "global", "time": "yesterday"}': 422,
            b'{"tenant": 7, "time": "2026-11-22T12:00:00Z"}': 422,
            b'{"tenant": "global", "time": "2026-11-22T12:00:00Z", "amount": 1e999}': 400,
            b'{"tenant": "global", "time": "2026-11-22T12:00:00Z", "amount": "much"}': 422,
            b'{"tenant": "global", "time": "2026-11-22T12:00:00Z", "sudo": true}': 422,
            b'{"tenant": "%s", "time": "2026-11-22T12:00:00Z"}' % (b"t" * 257): 422,
            b'{"tenant": "global", "time": "2026-11-22T12:00:00Z", "prompt": "%s"}' % (b"p" * 16385): 422,
            b'{"tenant": "' + b"t" * 2_097_152 + b'"}': 413,
            b"[" * 60_000 + b"]" * 60_000: 400,
            b"[]": 422,
        }
        for body, status in bad.items():
            headers = {"Content-Type": "application/json"}
            answer = await http.post(f"{engine.url}/v1/evaluate", content=body, headers=headers)
            assert (body[:80], answer.status_code) == (body[:80], status), answer.text
            assert answer.headers["content-type"] == "application/problem+json"

    async def test_requests_in_flight_see_one_document_while_it_changes(
        self, engine: Service, http: httpx.AsyncClient, author: Author
    ) -> None:
        """A document in which everything is allowed follows one in which nothing is, many times over."""
        effects = {}
        for number in range(10):
            effect = "allow" if number % 2 else "deny"
            released = await author.released(rules=[rule("all", effect, "true")])
            effects[released.checksum] = effect

            async def seen(generation: int = released.generation) -> bool:
                for _ in range(5):
                    question = {"tenant": "global", "time": NOON}
                    answer = (await http.post(f"{engine.url}/v1/evaluate", json=question)).json()
                    if answer["policy_hash"] in effects:
                        assert answer["decision"] == effects[answer["policy_hash"]]
                return bool(answer["generation"] == generation)

            await eventually(seen)

    @pytest.mark.slow
    async def test_is_fast(
        self, http: httpx.AsyncClient, start_engine: StartEngine, author: Author, no_kafka: dict[str, str]
    ) -> None:
        rules = [rule(f"r{n}", "deny", f'agent == "agent-{n}" && prompt.contains("word{n}")') for n in range(30)]
        await author.released(rules=rules, default_effect="allow")
        engine = await start_engine(**no_kafka).ready()
        question = {"tenant": "global", "agent": "agent-7", "prompt": "some words " * 20, "time": NOON}
        for _ in range(300):
            assert (await http.post(f"{engine.url}/v1/evaluate", json=question)).json()["decision"] == "allow"
        name = "policy_engine_evaluation_seconds_bucket"
        assert await engine.metric(name, le="0.001") >= 150, "half of the decisions must take less than a millisecond"


class TestEnding:
    async def test_a_restarted_engine_converges_on_what_happened_meanwhile(
        self, start_engine: StartEngine, author: Author, live: CurrentConstitution, no_kafka: dict[str, str]
    ) -> None:
        engine = await start_engine(**no_kafka).ready()
        await obeys(engine, live)
        engine.kill()
        released = await author.released()
        await engine.start().ready()
        await obeys(engine, released)

    async def test_sigterm_ends_it_cleanly_with_and_without_kafka(
        self, start_engine: StartEngine, no_kafka: dict[str, str]
    ) -> None:
        with_kafka, without = await start_engine().ready(), await start_engine(**no_kafka).ready()
        assert with_kafka.stop() == 0
        assert without.stop() == 0


async def test_follows_what_is_released_and_nothing_else(
    start_engine: StartEngine,
    service_environment: ServiceEnvironment,
    redis_url: str,
    kafka_configuration: dict[str, Any],
    http: httpx.AsyncClient,
) -> None:
    author, names, service = service_environment.author, service_environment.names, service_environment.service
    engine = start_engine(service_environment, POLL_SECONDS="1", MAX_STALENESS_SECONDS="4", STALENESS_ACTION="deny")
    await engine.ready()
    assert (await engine.policy()).state == "no_constitution"

    first = await author.released()
    assert first.generation == 1
    assert first.document is not None
    await eventually(lambda: obeys(engine, first))
    policy = Policy.compile(parse(first.document.encode()))
    for vector in VECTORS:
        body = vector.request.model_dump(mode="json")
        answer = (await http.post(f"{engine.url}/v1/evaluate", json=body)).json()
        expected = policy.evaluate(vector.request)
        told = PolicyDecision.model_validate({name: answer[name] for name in PolicyDecision.model_fields})
        assert told == expected
        assert vector.mismatch(told) is None

    # Whoever can write to Redis, but has no key, changes nothing.
    forger = Forger(service_environment.files)
    forged = forger.current(99, document("9.9.9"), signing_key=forger.stranger)
    async with redis.asyncio.from_url(redis_url) as cache:
        await cache.set(names.redis_current(), forged.model_dump_json())
        tell(kafka_configuration, names.topic_updated(), event_of(forged))

        async def refused() -> bool:
            name = "policy_engine_following_refused_total"
            return await engine.metric(name, reason="untrusted_event") == 1

        await eventually(refused)
        headers = author.files.bearer("policy:refresh")
        refreshed = await http.post(f"{engine.url}/v1/policy/refresh", headers=headers)
        assert refreshed.json()["checksum"] == first.checksum

    # Down past its staleness it denies; back again it goes on.
    service.kill()

    async def answers(decision: str, reason: str) -> bool:
        answer = (await http.post(f"{engine.url}/v1/evaluate", json=READING)).json()
        return (answer["decision"], answer["reason"]) == (decision, reason)

    await eventually(lambda: answers("deny", "stale"))
    await service.start().ready()
    await eventually(lambda: answers("allow", "rule"))

    # Killed while something is released, it comes back obeying it.
    engine.kill()
    second = await author.released()
    await engine.start().ready()
    await eventually(lambda: obeys(engine, second))
