"""The policy engine as a process, against whatever is on the wire: what it obeys, what it refuses, how it decides."""

import json
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis.asyncio
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from constitution.checksum import checksum_of
from constitution.names import Names
from constitution.policy.document import parse
from constitution.policy.evaluation import EvaluationRequest, PolicyDecision
from constitution.policy.rules import Policy
from constitution.release import CurrentConstitution
from tests.consumers_support import AnswerServer, Land, Service, document, rule
from tests.consumers_town import VECTORS, running_town
from tests.helpers import eventually
from tests.ports import free_port
from tests.resources import Database

NOON = "2026-11-22T12:00:00Z"
FAST = {"POLL_SECONDS": "0.2"}
NEVER = {"POLL_SECONDS": "3600"}

StartEngine = Callable[..., Service]


@pytest.fixture(scope="module")
def land(tmp_path_factory: pytest.TempPathFactory) -> Land:
    return Land.found(tmp_path_factory.mktemp("land"))


@pytest.fixture
async def wire(tmp_path: Path) -> AsyncIterator[AnswerServer]:
    """A server in the place of constitution-service; what it says, the test has signed, or forged."""
    server = AnswerServer(tmp_path / "wire").start()
    server.absent()
    await server.listening()
    yield server
    server.kill()


@pytest.fixture
def start_engine(
    land: Land, wire: AnswerServer, kafka: dict[str, str], namespace: str, tmp_path: Path
) -> Iterator[StartEngine]:
    engines: list[Service] = []

    def start(**settings: str) -> Service:
        engine = Service(
            "policy_engine",
            {
                "TARGET_ID": "engine-1",
                "NAMESPACE": namespace,
                "ENVIRONMENT_FILE": str(land.environment_file),
                "CONSTITUTION_SERVICE_URL": wire.url,
                **kafka,
                **FAST,
                **settings,
            },
            tmp_path / f"engine-{len(engines)}.log",
        )
        engines.append(engine.start())
        return engine

    yield start
    for engine in engines:
        engine.kill()


@pytest.fixture
def no_kafka() -> dict[str, str]:
    """Settings that lead to a broker that does not answer."""
    return {"KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}"}


@pytest.fixture
def topic(kafka_configuration: dict[str, Any], namespace: str) -> str:
    name = Names(namespace).topic_updated()
    admin = AdminClient(kafka_configuration)
    for future in admin.create_topics([NewTopic(name, num_partitions=1, replication_factor=1)]).values():
        future.result(20)
    return name


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        yield client


def event(current: CurrentConstitution, **changes: object) -> bytes:
    """The value of a ``constitution.updated`` record about a release."""
    fields = {
        "tenant": "global",
        "environment": current.environment,
        "rings": ["default"],
        "generation": current.generation,
        "checksum": current.checksum,
        "statement": current.statement.model_dump(mode="json"),
    }
    return json.dumps({**fields, **changes}).encode()


def tell(configuration: dict[str, Any], topic: str, value: bytes) -> None:
    producer = Producer({**configuration, "log_level": 0})
    producer.produce(topic, value=value, key=b"global")
    assert producer.flush(20) == 0


async def obeys(engine: Service, generation: int, text: bytes | None) -> bool:
    status = await engine.policy()
    assert status.generation == generation, status
    assert status.checksum == (None if text is None else checksum_of(text))
    return True


class TestBeforeAnything:
    async def test_it_serves_nothing_until_it_has_read_current(
        self, start_engine: StartEngine, wire: AnswerServer, http: httpx.AsyncClient, land: Land
    ) -> None:
        wire.answer(b"gone fishing", status=500)
        engine = await start_engine().healthy()
        answer = await http.post(f"{engine.url}/v1/evaluate", json={"tenant": "global", "time": NOON})
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
        assert (await http.get(f"{engine.url}/readyz")).status_code == 503
        assert (await engine.policy()).state == "starting"
        text = document("1.0.0")
        wire.answer(land.current(1, text))
        await engine.ready()
        await obeys(engine, 1, text)

    async def test_without_any_release_everything_is_denied_and_no_hash_is_invented(
        self, start_engine: StartEngine, http: httpx.AsyncClient
    ) -> None:
        engine = await start_engine().ready()
        answer = (await http.post(f"{engine.url}/v1/evaluate", json={"tenant": "global", "time": NOON})).json()
        assert answer["decision"] == "deny"
        assert answer["reason"] == "no_constitution"
        assert answer["policy_hash"] is None
        assert answer["generation"] == 0
        assert (await http.get(f"{engine.url}/readyz")).json()["status"] == "degraded"

    async def test_a_first_answer_that_is_forged_is_not_served(
        self, start_engine: StartEngine, wire: AnswerServer, land: Land, http: httpx.AsyncClient
    ) -> None:
        wire.answer(land.current(1, document("1.0.0"), signing_key=Ed25519PrivateKey.generate()))
        engine = await start_engine().healthy()

        async def reported() -> bool:
            return "untrusted_value" in str((await engine.policy()).last_error)

        await eventually(reported)
        assert (await http.get(f"{engine.url}/readyz")).status_code == 503

    async def test_bad_settings_are_all_listed_and_nothing_starts(self, tmp_path: Path) -> None:
        engine = Service("policy_engine", {"STALENESS_ACTION": "hope", "RING": "!"}, tmp_path / "log").start()
        assert engine.process is not None
        assert engine.process.wait(30) == 2
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
    """Whatever is answered without the pinned key changes nothing, is counted, and is said aloud."""

    @pytest.fixture
    async def engine(
        self, start_engine: StartEngine, wire: AnswerServer, land: Land, no_kafka: dict[str, str]
    ) -> Service:
        self.text = document("1.0.0")
        wire.answer(land.current(5, self.text))
        return await start_engine(**no_kafka).ready()

    async def refused(self, engine: Service, reason: str, words: str) -> None:
        before = await engine.metric("policy_engine_following_refused_total", reason=reason)

        async def reported() -> bool:
            assert await engine.metric("policy_engine_following_refused_total", reason=reason) > before
            status = await engine.policy()
            assert reason in str(status.last_error)
            assert words in str(status.last_error)
            return True

        await eventually(reported)
        await obeys(engine, 5, self.text)

    async def test_a_statement_by_another_key(self, engine: Service, wire: AnswerServer, land: Land) -> None:
        wire.answer(land.current(6, document("1.1.0"), signing_key=Ed25519PrivateKey.generate()))
        await self.refused(engine, "untrusted_value", "sign")

    async def test_a_statement_by_a_key_that_only_mints_tokens(
        self, engine: Service, wire: AnswerServer, land: Land
    ) -> None:
        wire.answer(land.current(6, document("1.1.0"), signing_key=land.key("worker").private_key, keyid="worker"))
        await self.refused(engine, "untrusted_value", "worker")

    async def test_other_bytes_under_a_good_statement(self, engine: Service, wire: AnswerServer, land: Land) -> None:
        good = land.current(6, document("1.1.0"))
        assert good.document is not None
        wire.answer(good.model_copy(update={"document": good.document.replace("deny", "allow")}))
        await self.refused(engine, "untrusted_value", "bytes")

    async def test_a_document_that_no_maintainer_signed(self, engine: Service, wire: AnswerServer, land: Land) -> None:
        wire.answer(land.current(6, document("1.1.0"), signers=("alva",)))
        await self.refused(engine, "untrusted_value", "maintainer")

    async def test_another_environment(self, engine: Service, wire: AnswerServer, land: Land) -> None:
        wire.answer(land.current(6, document("1.1.0", environment="production"), environment="production"))
        await self.refused(engine, "untrusted_value", "environment")

    async def test_another_environments_document_under_our_statement(
        self, engine: Service, wire: AnswerServer, land: Land
    ) -> None:
        wire.answer(land.current(6, document("1.1.0", environment="production")))
        await self.refused(engine, "untrusted_value", "production")

    async def test_another_ring(self, engine: Service, wire: AnswerServer, land: Land) -> None:
        wire.answer(land.current(6, document("1.1.0"), ring="canary"))
        await self.refused(engine, "untrusted_value", "canary")

    async def test_a_generation_that_the_statement_does_not_say(
        self, engine: Service, wire: AnswerServer, land: Land
    ) -> None:
        wire.answer(land.current(3, document("0.9.0")).model_copy(update={"generation": 7}))
        await self.refused(engine, "untrusted_value", "generation")

    async def test_an_older_release_that_was_really_signed(
        self, engine: Service, wire: AnswerServer, land: Land
    ) -> None:
        wire.answer(land.current(4, document("0.9.0")))
        await self.refused(engine, "untrusted_value", "older")

    async def test_a_second_document_signed_as_the_same_generation(
        self, engine: Service, wire: AnswerServer, land: Land
    ) -> None:
        wire.answer(land.current(5, document("1.0.1")))
        await self.refused(engine, "untrusted_value", "two different documents")

    async def test_no_constitution_after_there_was_one(self, engine: Service, wire: AnswerServer) -> None:
        wire.absent()
        await self.refused(engine, "unavailable", "no constitution")

    @pytest.mark.parametrize(
        "body",
        [b"", b"{}", b"\xff\xfe", b"[" * 100_000, b"x" * 40_000_000],
        ids=["empty", "{}", "bytes", "deep", "big"],
    )
    async def test_an_answer_that_is_no_answer(self, engine: Service, wire: AnswerServer, body: bytes) -> None:
        wire.answer(body)
        await self.refused(engine, "untrusted_value", "")

    async def test_a_genuine_release_after_forgeries_is_obeyed(
        self, engine: Service, wire: AnswerServer, land: Land
    ) -> None:
        wire.answer(land.current(9, document("6.6.6"), signing_key=Ed25519PrivateKey.generate()))
        await self.refused(engine, "untrusted_value", "sign")
        text = document("1.1.0")
        wire.answer(land.current(6, text))
        await eventually(lambda: obeys(engine, 6, text))


class TestHints:
    async def test_an_event_brings_the_release_at_once(
        self,
        start_engine: StartEngine,
        wire: AnswerServer,
        land: Land,
        topic: str,
        kafka_configuration: dict[str, Any],
    ) -> None:
        first, second = document("1.0.0"), document("1.1.0")
        wire.answer(land.current(1, first), etag='"1"')
        engine = await start_engine(**NEVER).ready()
        await eventually(lambda: len(wire.requests()) >= 2)  # at the start, and when the group had its partition
        new = land.current(2, second)
        wire.answer(new, etag='"2"')
        await obeys(engine, 1, first)
        tell(kafka_configuration, topic, event(new))
        await eventually(lambda: obeys(engine, 2, second))
        assert "min_generation=2" in wire.requests()[-1]

    async def test_forged_events_change_nothing_and_ask_nothing(
        self,
        start_engine: StartEngine,
        wire: AnswerServer,
        land: Land,
        topic: str,
        kafka_configuration: dict[str, Any],
    ) -> None:
        text = document("1.0.0")
        wire.answer(land.current(5, text))
        engine = await start_engine(**NEVER).ready()
        await eventually(lambda: len(wire.requests()) >= 2)
        asked = len(wire.requests())
        genuine = land.current(6, document("1.1.0"))
        forgeries = [
            event(land.current(99, document("9.9.9"), signing_key=Ed25519PrivateKey.generate())),
            event(genuine, generation=99),
            event(land.current(99, document("9.9.9", environment="production"), environment="production")),
            b"",
            b"\xff",
            b"[" * 5000,
            b'{"statement": null, "generation": 6}',
            json.dumps({"generation": 99}).encode(),
        ]
        for value in forgeries:
            tell(kafka_configuration, topic, value)

        async def all_refused() -> bool:
            return await engine.metric("policy_engine_following_refused_total", reason="untrusted_event") == len(
                forgeries
            )

        await eventually(all_refused)
        assert "untrusted_event" in str((await engine.policy()).last_error)
        await obeys(engine, 5, text)
        assert len(wire.requests()) == asked
        # Signed, but old, or of another ring: nothing to do, and nothing to complain of.
        tell(kafka_configuration, topic, event(land.current(4, document("0.9.0"))))
        tell(kafka_configuration, topic, event(land.current(7, document("1.2.0"), ring="canary")))
        wire.answer(genuine)
        tell(kafka_configuration, topic, event(genuine))
        await eventually(lambda: obeys(engine, 6, parse_text(genuine)))
        assert len(wire.requests()) == asked + 1

    async def test_a_service_that_answers_below_a_signed_event_is_no_contact(
        self,
        start_engine: StartEngine,
        wire: AnswerServer,
        land: Land,
        topic: str,
        kafka_configuration: dict[str, Any],
    ) -> None:
        """Somebody on the wire freezes us on an old release: the signed event gives it away."""
        text = document("1.0.0")
        wire.answer(land.current(1, text), etag='"1"')
        engine = await start_engine(MAX_STALENESS_SECONDS="2").ready()
        await eventually(lambda: len(wire.requests()) >= 4)
        tell(kafka_configuration, topic, event(land.current(2, document("1.1.0"))))

        async def stale() -> bool:
            return (await engine.policy()).state == "stale"

        await eventually(stale)
        await obeys(engine, 1, text)

    async def test_kafka_down_delays_but_does_not_prevent(
        self,
        start_engine: StartEngine,
        wire: AnswerServer,
        land: Land,
        no_kafka: dict[str, str],
        http: httpx.AsyncClient,
    ) -> None:
        first, second = document("1.0.0"), document("1.1.0")
        wire.answer(land.current(1, first), etag='"1"')
        engine = await start_engine(**no_kafka).ready()

        async def says_so() -> bool:
            report = (await http.get(f"{engine.url}/readyz")).json()
            return bool(report["status"] == "degraded" and report["checks"]["kafka"] != "ok")

        await eventually(says_so)
        wire.answer(land.current(2, second), etag='"2"')
        await eventually(lambda: obeys(engine, 2, second))


class TestStalenessAndExpiry:
    async def test_a_silent_service_degrades_by_default(
        self,
        start_engine: StartEngine,
        wire: AnswerServer,
        land: Land,
        http: httpx.AsyncClient,
        no_kafka: dict[str, str],
    ) -> None:
        wire.answer(land.current(1, document("1.0.0")))
        engine = await start_engine(MAX_STALENESS_SECONDS="1", **no_kafka).ready()
        wire.kill()

        async def stale() -> bool:
            return (await engine.policy()).state == "stale"

        await eventually(stale)
        report = await http.get(f"{engine.url}/readyz")
        assert report.status_code == 200
        assert report.json()["status"] == "degraded"
        reading = {"tenant": "global", "action": "read", "time": NOON}
        assert (await http.post(f"{engine.url}/v1/evaluate", json=reading)).json()["decision"] == "allow"
        await wire.start().listening()

        async def live() -> bool:
            return (await engine.policy()).state == "live"

        await eventually(live)

    async def test_a_silent_service_denies_by_setting(
        self,
        start_engine: StartEngine,
        wire: AnswerServer,
        land: Land,
        http: httpx.AsyncClient,
        no_kafka: dict[str, str],
    ) -> None:
        wire.answer(land.current(1, document("1.0.0")))
        engine = await start_engine(MAX_STALENESS_SECONDS="1", STALENESS_ACTION="deny", **no_kafka).ready()
        reading = {"tenant": "global", "action": "read", "time": NOON}
        assert (await http.post(f"{engine.url}/v1/evaluate", json=reading)).json()["decision"] == "allow"
        wire.send(signal.SIGSTOP)  # accepts, and never answers

        async def denies() -> bool:
            answer = (await http.post(f"{engine.url}/v1/evaluate", json=reading)).json()
            return bool(answer["decision"] == "deny" and answer["reason"] == "stale")

        await eventually(denies)

    @pytest.mark.parametrize(
        ("setting", "decision", "reason"), [("enforce", "allow", "rule"), ("deny", "deny", "expired")]
    )
    async def test_expired_while_live(  # noqa: PLR0917 - fixtures
        self,
        setting: str,
        decision: str,
        reason: str,
        start_engine: StartEngine,
        wire: AnswerServer,
        land: Land,
        http: httpx.AsyncClient,
        no_kafka: dict[str, str],
    ) -> None:
        text = document("1.0.0", lifetime=timedelta(seconds=6))
        wire.answer(land.current(1, text))
        engine = await start_engine(EXPIRED_ACTION=setting, **no_kafka).ready()

        async def expired() -> bool:
            return (await engine.policy()).state == "expired"

        await eventually(expired)
        assert (await http.get(f"{engine.url}/readyz")).json()["status"] == "degraded"
        reading = {"tenant": "global", "action": "read", "time": NOON}
        answer = (await http.post(f"{engine.url}/v1/evaluate", json=reading)).json()
        assert (answer["decision"], answer["reason"]) == (decision, reason)
        assert answer["policy_hash"] == checksum_of(text)

    async def test_after_a_withdrawal_everything_is_denied(
        self,
        start_engine: StartEngine,
        wire: AnswerServer,
        land: Land,
        http: httpx.AsyncClient,
        no_kafka: dict[str, str],
    ) -> None:
        text = document("1.0.0")
        wire.answer(land.current(1, text))
        engine = await start_engine(**no_kafka).ready()
        wire.answer(land.current(2, None, withdraws=text))
        await eventually(lambda: obeys(engine, 2, None))
        reading = {"tenant": "global", "action": "read", "time": NOON}
        answer = (await http.post(f"{engine.url}/v1/evaluate", json=reading)).json()
        assert (answer["decision"], answer["reason"], answer["policy_hash"]) == ("deny", "no_constitution", None)
        assert answer["generation"] == 2
        assert await engine.metric("policy_engine_constitution_info") == 0


class TestAsking:
    @pytest.fixture
    async def engine(
        self, start_engine: StartEngine, wire: AnswerServer, land: Land, no_kafka: dict[str, str]
    ) -> Service:
        self.text = document("1.0.0")
        wire.answer(land.current(1, self.text), etag='"1"')
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
            assert answer["constitution_version"] == "1.0.0"
            decisions.add(answer["decision"])
        assert decisions == {"allow", "deny", "require_approval"}
        assert await engine.metric("policy_engine_cel_errors_total") == 1

    async def test_counts_by_decision_severity_and_configured_tenant(
        self, engine: Service, http: httpx.AsyncClient, land: Land
    ) -> None:
        for tenant in ("global", "acme", "stranger", "stranger-2"):
            question = {"tenant": tenant, "action": "read", "time": NOON}
            assert (await http.post(f"{engine.url}/v1/evaluate", json=question)).status_code == 200
        probe = {"tenant": "runbook-probe", "action": "read", "time": NOON}
        headers = land.token("probe")
        assert (await http.post(f"{engine.url}/v1/evaluate", json=probe, headers=headers)).status_code == 200
        name, labels = "policy_engine_evaluations_total", {"decision": "allow", "severity": "low", "target": "engine-1"}
        counted = [
            await engine.metric(name, tenant=tenant, **labels)
            for tenant in ("global", "acme", "other", "runbook-probe")
        ]
        assert counted == [1, 1, 2, 1]
        assert await engine.metric(name, tenant="stranger") == 0
        info = {"version": "1.0.0", "checksum": checksum_of(self.text), "generation": "1"}
        assert await engine.metric("policy_engine_constitution_info", **info) == 1

    async def test_the_probe_tenant_needs_the_probe_scope(
        self, engine: Service, http: httpx.AsyncClient, land: Land
    ) -> None:
        probe = {"tenant": "runbook-probe", "time": NOON}
        for headers in (
            {},
            {"Authorization": "Bearer nonsense"},
            {"Authorization": "Basic eDp5"},
            land.token("policy:refresh"),
            land.token("probe", environment="production"),
        ):
            answer = await http.post(f"{engine.url}/v1/evaluate", json=probe, headers=headers)
            assert answer.status_code == 403, headers
            assert answer.json()["code"] == "forbidden"
        assert engine.output().count('"probe_refused"') == 5
        assert await engine.metric("policy_engine_evaluations_total") == 0

    async def test_refresh_needs_its_scope_and_reads_and_verifies_now(
        self,
        start_engine: StartEngine,
        http: httpx.AsyncClient,
        land: Land,
        wire: AnswerServer,
        no_kafka: dict[str, str],
    ) -> None:
        first, second = document("1.0.0"), document("1.1.0")
        wire.answer(land.current(1, first), etag='"1"')
        engine = await start_engine(**NEVER, **no_kafka).ready()
        assert (await http.post(f"{engine.url}/v1/policy/refresh")).status_code == 403
        wrong = await http.post(f"{engine.url}/v1/policy/refresh", headers=land.token("probe"))
        assert wrong.status_code == 403
        wire.answer(land.current(2, second), etag='"2"')
        await obeys(engine, 1, first)
        answer = await http.post(f"{engine.url}/v1/policy/refresh", headers=land.token("policy:refresh"))
        assert answer.status_code == 200
        assert answer.json()["checksum"] == checksum_of(second)
        wire.answer(land.current(3, document("1.2.0"), signing_key=Ed25519PrivateKey.generate()))
        answer = await http.post(f"{engine.url}/v1/policy/refresh", headers=land.token("policy:refresh"))
        assert answer.status_code == 503
        assert "verified" in answer.json()["detail"]
        await obeys(engine, 2, second)

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
        self, engine: Service, http: httpx.AsyncClient, wire: AnswerServer, land: Land
    ) -> None:
        """A document in which everything is allowed follows one in which nothing is, many times over."""
        texts = {}
        for generation in range(2, 12):
            effect = "allow" if generation % 2 else "deny"
            text = document(f"1.0.{generation}", [rule("all", effect, "true")])
            texts[checksum_of(text)] = effect
            wire.answer(land.current(generation, text))

            async def seen(generation: int = generation) -> bool:
                for _ in range(5):
                    question = {"tenant": "global", "time": NOON}
                    answer = (await http.post(f"{engine.url}/v1/evaluate", json=question)).json()
                    if answer["policy_hash"] in texts:
                        assert answer["decision"] == texts[answer["policy_hash"]]
                return bool(answer["generation"] == generation)

            await eventually(seen)

    async def test_is_fast(
        self,
        http: httpx.AsyncClient,
        start_engine: StartEngine,
        wire: AnswerServer,
        land: Land,
        no_kafka: dict[str, str],
    ) -> None:
        rules = [rule(f"r{n}", "deny", f'agent == "agent-{n}" && prompt.contains("word{n}")') for n in range(30)]
        wire.answer(land.current(1, document("2.0.0", rules, default_effect="allow")))
        engine = await start_engine(**no_kafka).ready()
        question = {"tenant": "global", "agent": "agent-7", "prompt": "some words " * 20, "time": NOON}
        for _ in range(300):
            assert (await http.post(f"{engine.url}/v1/evaluate", json=question)).json()["decision"] == "allow"
        name = "policy_engine_evaluation_seconds_bucket"
        assert await engine.metric(name, le="0.001") >= 150, "half of the decisions must take less than a millisecond"


class TestEnding:
    async def test_a_restarted_engine_converges_on_what_happened_meanwhile(
        self, start_engine: StartEngine, wire: AnswerServer, land: Land, no_kafka: dict[str, str]
    ) -> None:
        first, second = document("1.0.0"), document("1.1.0")
        wire.answer(land.current(1, first))
        engine = await start_engine(**no_kafka).ready()
        await obeys(engine, 1, first)
        engine.kill()
        wire.answer(land.current(2, second))
        await engine.start().ready()
        await obeys(engine, 2, second)

    async def test_sigterm_ends_it_cleanly_with_and_without_kafka(
        self, start_engine: StartEngine, no_kafka: dict[str, str]
    ) -> None:
        with_kafka, without = await start_engine().ready(), await start_engine(**no_kafka).ready()
        assert with_kafka.stop() == 0
        assert without.stop() == 0


class TestWithConstitutionService:
    """Real releases, by the real service, on real servers."""

    async def test_follows_what_is_released_and_nothing_else(  # noqa: PLR0917 - fixtures
        self,
        tmp_path: Path,
        database: Database,
        redis_url: str,
        kafka: dict[str, str],
        kafka_configuration: dict[str, Any],
        namespace: str,
        http: httpx.AsyncClient,
    ) -> None:
        async with running_town(
            tmp_path,
            database=database,
            redis_url=redis_url,
            kafka=kafka,
            kafka_configuration=kafka_configuration,
            namespace=namespace,
        ) as town:
            settings = town.settings("engine-1", POLL_SECONDS="1", MAX_STALENESS_SECONDS="4", STALENESS_ACTION="deny")
            engine = Service("policy_engine", settings, tmp_path / "engine.log").start()
            try:
                await engine.ready()
                assert (await engine.policy()).state == "no_constitution"

                first = document("1.0.0")
                loaded = await town.release(first, VECTORS)
                assert loaded.generation == 1
                await eventually(lambda: obeys(engine, 1, first))
                policy = Policy.compile(parse(first))
                for vector in VECTORS:
                    body = vector.request.model_dump(mode="json")
                    answer = (await http.post(f"{engine.url}/v1/evaluate", json=body)).json()
                    expected = policy.evaluate(vector.request)
                    told = PolicyDecision.model_validate({name: answer[name] for name in PolicyDecision.model_fields})
                    assert told == expected
                    assert vector.mismatch(told) is None

                # Whoever can write to Redis, but has no key, changes nothing.
                names = Names(namespace)
                forged = town.land.current(99, document("9.9.9"), signing_key=Ed25519PrivateKey.generate())
                async with redis.asyncio.from_url(redis_url) as cache:
                    await cache.set(names.redis_current(), forged.model_dump_json())
                    tell(kafka_configuration, names.topic_updated(), event(forged))

                    async def refused() -> bool:
                        name = "policy_engine_following_refused_total"
                        return await engine.metric(name, reason="untrusted_event") == 1

                    await eventually(refused)
                    headers = town.land.token("policy:refresh")
                    refreshed = await http.post(f"{engine.url}/v1/policy/refresh", headers=headers)
                    assert refreshed.json()["checksum"] == checksum_of(first)

                # Down past its staleness it denies; back again it goes on.
                town.service.kill()
                reading = {"tenant": "global", "action": "read", "time": NOON}

                async def answers(decision: str, reason: str) -> bool:
                    answer = (await http.post(f"{engine.url}/v1/evaluate", json=reading)).json()
                    return (answer["decision"], answer["reason"]) == (decision, reason)

                await eventually(lambda: answers("deny", "stale"))
                await town.service.start().ready()
                await eventually(lambda: answers("allow", "rule"))

                # Killed while something is released, it comes back obeying it.
                engine.kill()
                second = document("1.1.0", previous=("1.0.0", checksum_of(first)))
                await town.release(second, VECTORS)
                await engine.start().ready()
                await eventually(lambda: obeys(engine, 2, second))
            finally:
                engine.kill()

    async def test_a_withdrawn_first_release_denies_everything(  # noqa: PLR0917 - fixtures
        self,
        tmp_path: Path,
        database: Database,
        redis_url: str,
        kafka: dict[str, str],
        kafka_configuration: dict[str, Any],
        namespace: str,
        http: httpx.AsyncClient,
    ) -> None:
        async with running_town(
            tmp_path,
            database=database,
            redis_url=redis_url,
            kafka=kafka,
            kafka_configuration=kafka_configuration,
            namespace=namespace,
        ) as town:
            engine = Service("policy_engine", town.settings("engine-1"), tmp_path / "engine.log").start()
            try:
                await engine.ready()
                first = document("1.0.0")
                await town.release(first, VECTORS)
                await eventually(lambda: obeys(engine, 1, first))
                await town.withdraw(1)
                await eventually(lambda: obeys(engine, 2, None))
                reading = {"tenant": "global", "action": "read", "time": NOON}
                answer = (await http.post(f"{engine.url}/v1/evaluate", json=reading)).json()
                assert (answer["decision"], answer["reason"]) == ("deny", "no_constitution")
            finally:
                engine.kill()


def parse_text(current: CurrentConstitution) -> bytes:
    assert current.document is not None
    return current.document.encode()
