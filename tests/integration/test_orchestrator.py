"""The orchestrator and its policy engines as processes: it really asks, and answers only what both agree on."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from constitution.checksum import checksum_of
from constitution.policy.document import parse
from constitution.policy.evaluation import EvaluationRequest, PolicyDecision
from constitution.policy.rules import Policy
from tests.consumers_support import AnswerServer, Land, Service, document, rule
from tests.consumers_town import VECTORS, running_town
from tests.helpers import eventually
from tests.ports import free_port
from tests.resources import Database

NOON = "2026-11-22T12:00:00Z"
READING = {"tenant": "global", "user": "u1", "agent": "a1", "action": "read", "prompt": "summarise the report"}

Start = Callable[..., Service]


@pytest.fixture(scope="module")
def land(tmp_path_factory: pytest.TempPathFactory) -> Land:
    return Land.found(tmp_path_factory.mktemp("land"))


@pytest.fixture
async def wire(tmp_path: Path) -> AsyncIterator[AnswerServer]:
    server = AnswerServer(tmp_path / "wire").start()
    server.absent()
    await server.listening()
    yield server
    server.kill()


@pytest.fixture
def start(land: Land, wire: AnswerServer, tmp_path: Path) -> Iterator[Start]:
    """Start a consumer that hears no hint and polls once an hour: what it learns, it learns by asking."""
    services: list[Service] = []

    def start(name: str, **settings: str) -> Service:
        service = Service(
            name,
            {
                "TARGET_ID": f"{name.replace('_', '-')}-{len(services)}",
                "ENVIRONMENT_FILE": str(land.environment_file),
                "CONSTITUTION_SERVICE_URL": wire.url,
                "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}",
                "POLL_SECONDS": "3600",
                **({"CLIENT_KEY_FILE": str(land.key_file("target"))} if name == "orchestrator" else {}),
                **settings,
            },
            tmp_path / f"{name}-{len(services)}.log",
        )
        services.append(service.start())
        return service

    yield start
    for service in services:
        service.kill()


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False, timeout=15) as client:
        yield client


async def session(
    http: httpx.AsyncClient, orchestrator: Service, headers: dict[str, str] | None = None, **changes: Any
) -> Any:
    answer = await http.post(f"{orchestrator.url}/v1/sessions/start", json={**READING, **changes}, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


class TestSessions:
    @pytest.fixture
    async def pair(self, start: Start, wire: AnswerServer, land: Land) -> tuple[Service, Service]:
        self.text = document("1.0.0")
        wire.answer(land.current(1, self.text), etag='"1"')
        engine = start("policy_engine")
        orchestrator = start("orchestrator", POLICY_ENGINE_URL=engine.url)
        return await orchestrator.ready(), await engine.ready()

    async def test_an_allowed_session_starts(self, pair: tuple[Service, Service], http: httpx.AsyncClient) -> None:
        orchestrator, engine = pair
        first, second = await session(http, orchestrator), await session(http, orchestrator)
        assert first["decision"] == "allow"
        assert first["rule"] == "reading"
        assert first["session_id"]
        assert first["session_id"] != second["session_id"]
        assert first["ticket"] is None
        assert first["policy_hash"] == checksum_of(self.text)
        assert first["constitution_version"] == "1.0.0"
        assert first["generation"] == 1
        assert await engine.metric("policy_engine_evaluations_total") == 2
        assert await orchestrator.metric("orchestrator_sessions_total", decision="allow", tenant="global") == 2

    async def test_a_denied_session_has_no_id(self, pair: tuple[Service, Service], http: httpx.AsyncClient) -> None:
        answer = await session(http, pair[0], data_class="secret")
        assert (answer["decision"], answer["rule"], answer["session_id"]) == ("deny", "no-secrets", None)
        assert answer["message"] == "rule no-secrets applies"
        assert answer["severity"] == "critical"

    async def test_a_session_that_needs_approval_is_refused_with_a_ticket(
        self, pair: tuple[Service, Service], http: httpx.AsyncClient
    ) -> None:
        answer = await session(http, pair[0], amount=1000.01)
        assert (answer["decision"], answer["session_id"]) == ("require_approval", None)
        assert answer["ticket"].startswith("T-")
        assert answer["ticket"] in pair[0].output()

    async def test_decides_as_the_domain_does(
        self, pair: tuple[Service, Service], http: httpx.AsyncClient, land: Land
    ) -> None:
        policy = Policy.compile(parse(self.text))
        vectors: list[dict[str, Any]] = [
            {"tenant": "global", "action": "read", "time": NOON},
            {"tenant": "global", "action": "write", "time": NOON},
            {"tenant": "acme", "action": "read", "time": "2026-11-22T03:00:00Z"},
            {"tenant": "acme", "action": "read", "time": NOON},
            {"tenant": "acme", "action": "divide", "amount": 0.25, "time": NOON},
        ]
        for vector in vectors:
            answer = await http.post(f"{pair[0].url}/v1/sessions/start", json=vector, headers=land.token("probe"))
            expected = policy.evaluate(EvaluationRequest.model_validate(vector))
            for name in ("decision", "rule", "severity", "message", "reason"):
                assert answer.json()[name] == getattr(expected, name), vector

    async def test_nobody_but_the_probe_chooses_the_hour(
        self, pair: tuple[Service, Service], http: httpx.AsyncClient, land: Land
    ) -> None:
        url = f"{pair[0].url}/v1/sessions/start"
        assert (await http.post(url, json={**READING, "time": NOON})).status_code == 403
        assert (await http.post(url, json={**READING, "tenant": "runbook-probe"})).status_code == 403
        refresh = land.token("policy:refresh")
        assert (await http.post(url, json={**READING, "tenant": "runbook-probe"}, headers=refresh)).status_code == 403
        probe = await session(http, pair[0], land.token("probe"), tenant="runbook-probe", time=NOON)
        assert probe["decision"] == "allow"
        assert await pair[1].metric("policy_engine_evaluations_total", tenant="runbook-probe") == 1

    async def test_bad_input_is_a_problem(self, pair: tuple[Service, Service], http: httpx.AsyncClient) -> None:
        bad = {
            b"{": 400,
            b'{"tenant": "a", "tenant": "b"}': 400,
            b"{}": 422,
            b'{"tenant": "global", "deployment_mode": "yolo"}': 422,
            b'{"tenant": "global", "mode": "x"}': 422,
            b'{"tenant": "' + b"t" * 2_097_152 + b'"}': 413,
        }
        for body, status in bad.items():
            headers = {"Content-Type": "application/json"}
            answer = await http.post(f"{pair[0].url}/v1/sessions/start", content=body, headers=headers)
            assert (body[:80], answer.status_code) == (body[:80], status), answer.text
            assert answer.headers["content-type"] == "application/problem+json"


class TestFollowing:
    """No hint and no poll reach anybody here."""

    async def test_the_next_session_after_a_change_obeys_it_and_brings_the_engine_along(
        self, start: Start, wire: AnswerServer, land: Land, http: httpx.AsyncClient
    ) -> None:
        first, second = document("1.0.0"), document("1.1.0", [rule("none", "deny", "true")])
        wire.answer(land.current(1, first), etag='"1"')
        engine = start("policy_engine")
        orchestrator = await start("orchestrator", POLICY_ENGINE_URL=engine.url).ready()
        await engine.ready()
        assert (await session(http, orchestrator))["decision"] == "allow"
        wire.answer(land.current(2, second), etag='"2"')
        answer = await session(http, orchestrator)
        assert (answer["decision"], answer["generation"]) == ("deny", 2)
        assert answer["policy_hash"] == checksum_of(second)
        assert (await engine.policy()).generation == 2

    async def test_an_engine_that_is_ahead_makes_the_orchestrator_follow(
        self, start: Start, wire: AnswerServer, land: Land, http: httpx.AsyncClient, tmp_path: Path
    ) -> None:
        first, second = document("1.0.0"), document("1.1.0", [rule("none", "deny", "true")])
        ahead = AnswerServer(tmp_path / "ahead").start()
        ahead.answer(land.current(2, second))
        await ahead.listening()
        wire.answer(land.current(1, first), etag='"1"')
        engine = await start("policy_engine", CONSTITUTION_SERVICE_URL=ahead.url).ready()
        orchestrator = await start("orchestrator", POLICY_ENGINE_URL=engine.url).ready()
        answer = await session(http, orchestrator)
        assert (answer["decision"], answer["reason"]) == ("deny", "engine_disagrees")
        assert answer["generation"] == 1
        wire.answer(land.current(2, second), etag='"2"')
        answer = await session(http, orchestrator)
        assert (answer["decision"], answer["rule"], answer["generation"]) == ("deny", "none", 2)
        ahead.kill()

    async def test_production_debug_refreshes_both_and_answers_with_a_proven_hash(
        self, start: Start, wire: AnswerServer, land: Land, http: httpx.AsyncClient
    ) -> None:
        first, second = document("1.0.0"), document("1.1.0")
        wire.answer(land.current(1, first), etag='"same"')
        engine = start("policy_engine")
        orchestrator = await start("orchestrator", POLICY_ENGINE_URL=engine.url).ready()
        await engine.ready()
        # A server that says "not modified" whatever happened: only a whole read finds the change.
        wire.answer(land.current(2, second), etag='"same"')
        assert (await session(http, orchestrator))["generation"] == 1
        url = f"{orchestrator.url}/v1/sessions/start"
        stranger = await http.post(url, json={**READING, "deployment_mode": "production-debug"})
        assert (stranger.status_code, stranger.json()["code"]) == (403, "forbidden")
        assert (await engine.policy()).generation == 1
        answer = await session(http, orchestrator, land.token("probe"), deployment_mode="production-debug")
        assert (answer["generation"], answer["policy_hash"]) == (2, checksum_of(second))
        assert (await engine.policy()).checksum == checksum_of(second)

    async def test_a_storm_of_forced_refreshes_becomes_few_reads(
        self, start: Start, wire: AnswerServer, land: Land, http: httpx.AsyncClient
    ) -> None:
        wire.answer(land.current(1, document("1.0.0")), etag='"1"')
        engine = start("policy_engine")
        orchestrator = await start("orchestrator", POLICY_ENGINE_URL=engine.url).ready()
        await engine.ready()
        before = len(wire.requests())
        probe = land.token("probe")
        storm = [session(http, orchestrator, probe, deployment_mode="production-debug") for _ in range(60)]
        answers = await asyncio.gather(*storm)
        assert {answer["generation"] for answer in answers} == {1}
        reads = len(wire.requests()) - before
        assert 2 <= reads < 60, reads  # two of each would do; a busy machine spreads the storm

    async def test_production_debug_without_a_verified_answer_is_unavailable(
        self, start: Start, wire: AnswerServer, land: Land, http: httpx.AsyncClient
    ) -> None:
        text = document("1.0.0")
        wire.answer(land.current(1, text), etag='"1"')
        engine = start("policy_engine")
        orchestrator = await start("orchestrator", POLICY_ENGINE_URL=engine.url).ready()
        await engine.ready()
        wire.answer(land.current(2, document("1.1.0"), signing_key=Ed25519PrivateKey.generate()), etag='"2"')
        url = f"{orchestrator.url}/v1/sessions/start"
        debug = {**READING, "deployment_mode": "production-debug"}
        answer = await http.post(url, json=debug, headers=land.token("probe"))
        assert answer.status_code == 503
        assert (await session(http, orchestrator))["policy_hash"] == checksum_of(text)

    async def test_without_constitution_service_sessions_go_on_by_the_last_good_document(
        self, start: Start, wire: AnswerServer, land: Land, http: httpx.AsyncClient
    ) -> None:
        text = document("1.0.0")
        wire.answer(land.current(1, text))
        engine = start("policy_engine")
        orchestrator = await start("orchestrator", POLICY_ENGINE_URL=engine.url).ready()
        await engine.ready()
        wire.kill()
        for _ in range(3):
            answer = await session(http, orchestrator)
            assert (answer["decision"], answer["policy_hash"]) == ("allow", checksum_of(text))
        assert "unavailable" in str((await orchestrator.policy()).last_error)

    async def test_without_any_release_sessions_are_denied(
        self, start: Start, land: Land, http: httpx.AsyncClient
    ) -> None:
        engine = start("policy_engine")
        orchestrator = await start("orchestrator", POLICY_ENGINE_URL=engine.url).ready()
        for mode in ("production", "production-debug"):
            answer = await session(http, orchestrator, land.token("probe"), deployment_mode=mode)
            assert (answer["decision"], answer["reason"]) == ("deny", "no_constitution")
            assert answer["policy_hash"] is None
            assert answer["session_id"] is None


class TestEngines:
    async def test_engines_are_tried_in_turn_and_without_any_the_session_is_refused(
        self, start: Start, wire: AnswerServer, land: Land, http: httpx.AsyncClient
    ) -> None:
        text = document("1.0.0")
        wire.answer(land.current(1, text), etag='"1"')
        first, second = start("policy_engine"), start("policy_engine")
        urls = f"{first.url}, {second.url}/"
        orchestrator = await start("orchestrator", POLICY_ENGINE_URL=urls).ready()
        await first.ready()
        await second.ready()
        await session(http, orchestrator)
        assert await second.metric("policy_engine_evaluations_total") == 0
        first.send(signal.SIGSTOP)  # takes connections, never answers
        assert (await session(http, orchestrator))["decision"] == "allow"
        assert await second.metric("policy_engine_evaluations_total") == 1
        first.kill()
        assert (await session(http, orchestrator))["decision"] == "allow"
        second.kill()
        answer = await session(http, orchestrator)
        assert (answer["decision"], answer["reason"], answer["session_id"]) == ("deny", "engine_unreachable", None)
        assert answer["policy_hash"] == checksum_of(text)
        await second.start().ready()
        assert (await session(http, orchestrator))["decision"] == "allow"

    async def test_something_that_is_no_engine_is_never_believed(
        self, start: Start, wire: AnswerServer, land: Land, http: httpx.AsyncClient
    ) -> None:
        wire.answer(land.current(1, document("1.0.0")), etag='"1"')
        orchestrator = await start("orchestrator", POLICY_ENGINE_URL=wire.url).ready()
        assert (await session(http, orchestrator))["reason"] == "engine_unreachable"

    async def test_an_engine_that_stays_behind_is_not_followed(
        self, start: Start, wire: AnswerServer, land: Land, http: httpx.AsyncClient, tmp_path: Path
    ) -> None:
        """Its constitution-service is another one, which is frozen on the release before."""
        first, second = document("1.0.0"), document("1.1.0")
        frozen = AnswerServer(tmp_path / "frozen").start()
        frozen.answer(land.current(1, first))
        await frozen.listening()
        wire.answer(land.current(2, second), etag='"2"')
        engine = await start("policy_engine", CONSTITUTION_SERVICE_URL=frozen.url).ready()
        orchestrator = await start("orchestrator", POLICY_ENGINE_URL=engine.url).ready()
        answer = await session(http, orchestrator)
        assert (answer["decision"], answer["reason"], answer["generation"]) == ("deny", "engine_disagrees", 2)
        frozen.kill()

    async def test_a_stale_orchestrator_denies_by_setting(
        self, start: Start, wire: AnswerServer, land: Land, http: httpx.AsyncClient
    ) -> None:
        wire.answer(land.current(1, document("1.0.0")), etag='"1"')
        engine = start("policy_engine")
        orchestrator = await start(
            "orchestrator",
            POLICY_ENGINE_URL=engine.url,
            POLL_SECONDS="0.2",
            MAX_STALENESS_SECONDS="1",
            STALENESS_ACTION="deny",
        ).ready()
        await engine.ready()
        assert (await session(http, orchestrator))["decision"] == "allow"
        wire.kill()

        async def stale() -> bool:
            return bool((await session(http, orchestrator))["reason"] == "stale")

        await eventually(stale)


class TestWithConstitutionService:
    async def test_golden_vectors_and_the_next_session_after_a_release(  # noqa: PLR0917 - fixtures
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
            rare = {"POLL_SECONDS": "3600"}
            engine = Service("policy_engine", town.settings("engine-1", **rare), tmp_path / "engine.log").start()
            key = str(town.land.key_file("target"))
            asking = town.settings("orchestrator-1", POLICY_ENGINE_URL=engine.url, CLIENT_KEY_FILE=key, **rare)
            orchestrator = Service("orchestrator", asking, tmp_path / "orchestrator.log").start()
            try:
                await engine.ready()
                await orchestrator.ready()
                assert (await session(http, orchestrator))["reason"] == "no_constitution"

                first = document("1.0.0")
                await town.release(first, VECTORS)
                answer = await session(http, orchestrator)  # the very next one
                assert (answer["decision"], answer["generation"]) == ("allow", 1)
                assert answer["policy_hash"] == checksum_of(first)
                for vector in VECTORS:
                    body = vector.request.model_dump(mode="json")
                    headers = town.land.token("probe")
                    told = await http.post(f"{orchestrator.url}/v1/sessions/start", json=body, headers=headers)
                    fields = {name: told.json()[name] for name in ("decision", "rule", "severity", "message", "reason")}
                    assert vector.mismatch(PolicyDecision.model_validate(fields)) is None

                second = document("1.1.0", [rule("none", "deny", "true")], previous=("1.0.0", checksum_of(first)))
                await town.release(second)
                probe = town.land.token("probe")
                answer = await session(http, orchestrator, probe, deployment_mode="production-debug")
                assert (answer["decision"], answer["rule"], answer["generation"]) == ("deny", "none", 2)
                assert (await engine.policy()).checksum == checksum_of(second)
                assert orchestrator.stop() == 0
                assert engine.stop() == 0
            finally:
                orchestrator.kill()
                engine.kill()
