"""The orchestrator and its policy engines as processes: it really asks, and answers only what both agree on.

They follow a real constitution-service, and what is live there was really released. Faults and attackers are on the
wire between the two.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from constitution.checksum import checksum_of
from constitution.policy.document import parse
from constitution.policy.evaluation import EvaluationRequest, PolicyDecision
from constitution.policy.rules import Policy
from constitution.release import CurrentConstitution
from tests.helpers import eventually
from tests.ports import free_port
from tests.world.author import Author, Forger
from tests.world.documents import NOON, VECTORS, document, rule
from tests.world.environment import ServiceEnvironment
from tests.world.processes import Service
from tests.world.wire import Fault, Wire

READING = {"tenant": "global", "user": "u1", "agent": "a1", "action": "read", "prompt": "summarise the report"}
NOTHING = [rule("none", "deny", "true")]

Start = Callable[..., Service]


@pytest.fixture
def author(shared_environment: ServiceEnvironment) -> Author:
    """Who releases what the module's consumers follow."""
    return shared_environment.author


@pytest.fixture
def wire(shared_environment: ServiceEnvironment) -> Iterator[Wire]:
    """From the test's consumers to constitution-service."""
    wire = Wire(shared_environment.service.url)
    yield wire
    wire.close()


@pytest.fixture
def start(shared_environment: ServiceEnvironment, wire: Wire, tmp_path: Path) -> Iterator[Start]:
    """Start a consumer that hears no hint and polls once an hour: what it learns, it learns by asking."""
    services: list[Service] = []

    def start(name: str, followed: ServiceEnvironment = shared_environment, **settings: str) -> Service:
        url = {"CONSTITUTION_SERVICE_URL": wire.url} if followed is shared_environment else {}
        key = {"CLIENT_KEY_FILE": str(followed.files.key_file("target"))} if name == "orchestrator" else {}
        deaf = {"KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}", "POLL_SECONDS": "3600"}
        given = followed.consumer_settings(f"{name[:6]}-{uuid4().hex[:8]}", **{**url, **key, **deaf, **settings})
        services.append(Service(name, given, tmp_path / f"{name}-{len(services)}.log").start())
        return services[-1]

    yield start
    for service in services:
        service.kill()


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False, timeout=15) as client:
        yield client


@pytest.fixture
async def live(author: Author) -> CurrentConstitution:
    """What is live: a new release of the documents that this module mostly asks about."""
    return await author.released()


async def both(start: Start, *followed: ServiceEnvironment, **settings: str) -> tuple[Service, Service]:
    """An orchestrator and its engine, both ready."""
    engine = start("policy_engine", *followed)
    orchestrator = await start("orchestrator", *followed, POLICY_ENGINE_URL=engine.url, **settings).ready()
    return orchestrator, await engine.ready()


def frozen_on(wire: Wire, current: CurrentConstitution) -> None:
    """From now on the wire says what was live once."""
    wire.be(Fault(body=current.model_dump_json().encode(), etag='"frozen"'))


async def session(
    http: httpx.AsyncClient, orchestrator: Service, headers: dict[str, str] | None = None, **changes: Any
) -> Any:
    answer = await http.post(f"{orchestrator.url}/v1/sessions/start", json={**READING, **changes}, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


class TestSessions:
    @pytest.fixture
    async def pair(self, start: Start, author: Author) -> tuple[Service, Service]:
        self.live = await author.released()
        assert self.live.document is not None
        self.text = self.live.document.encode()
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
        assert first["constitution_version"] == self.live.version
        assert first["generation"] == self.live.generation
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
        self, pair: tuple[Service, Service], http: httpx.AsyncClient, author: Author
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
            answer = await http.post(
                f"{pair[0].url}/v1/sessions/start", json=vector, headers=author.files.bearer("probe")
            )
            expected = policy.evaluate(EvaluationRequest.model_validate(vector))
            for name in ("decision", "rule", "severity", "message", "reason"):
                assert answer.json()[name] == getattr(expected, name), vector

    async def test_nobody_but_the_probe_chooses_the_hour(
        self, pair: tuple[Service, Service], http: httpx.AsyncClient, author: Author
    ) -> None:
        url = f"{pair[0].url}/v1/sessions/start"
        assert (await http.post(url, json={**READING, "time": NOON})).status_code == 403
        assert (await http.post(url, json={**READING, "tenant": "runbook-probe"})).status_code == 403
        refresh = author.files.bearer("policy:refresh")
        assert (await http.post(url, json={**READING, "tenant": "runbook-probe"}, headers=refresh)).status_code == 403
        probe = await session(http, pair[0], author.files.bearer("probe"), tenant="runbook-probe", time=NOON)
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

    @pytest.mark.usefixtures("live")
    async def test_the_next_session_after_a_change_obeys_it_and_brings_the_engine_along(
        self, start: Start, author: Author, http: httpx.AsyncClient
    ) -> None:
        orchestrator, engine = await both(start)
        assert (await session(http, orchestrator))["decision"] == "allow"
        second = await author.released(rules=NOTHING)
        answer = await session(http, orchestrator)
        assert (answer["decision"], answer["generation"]) == ("deny", second.generation)
        assert answer["policy_hash"] == second.checksum
        assert (await engine.policy()).generation == second.generation

    async def test_an_engine_that_is_ahead_makes_the_orchestrator_follow(
        self, start: Start, wire: Wire, author: Author, live: CurrentConstitution, http: httpx.AsyncClient
    ) -> None:
        behind = Wire(wire.upstream)
        frozen_on(behind, live)
        second = await author.released(rules=NOTHING)
        engine = await start("policy_engine").ready()
        asking = {"POLICY_ENGINE_URL": engine.url, "CONSTITUTION_SERVICE_URL": behind.url}
        orchestrator = await start("orchestrator", **asking).ready()
        answer = await session(http, orchestrator)
        assert (answer["decision"], answer["reason"]) == ("deny", "engine_disagrees")
        assert answer["generation"] == live.generation
        behind.repair()
        answer = await session(http, orchestrator)
        assert (answer["decision"], answer["rule"], answer["generation"]) == ("deny", "none", second.generation)
        behind.close()

    async def test_production_debug_refreshes_both_and_answers_with_a_proven_hash(
        self, start: Start, wire: Wire, author: Author, live: CurrentConstitution, http: httpx.AsyncClient
    ) -> None:
        orchestrator, engine = await both(start)
        # A cache on the way that says "not modified" whatever happened: only a whole read finds the change.
        wire.be(Fault(stuck=True))
        second = await author.released()
        assert (await session(http, orchestrator))["generation"] == live.generation
        url = f"{orchestrator.url}/v1/sessions/start"
        stranger = await http.post(url, json={**READING, "deployment_mode": "production-debug"})
        assert (stranger.status_code, stranger.json()["code"]) == (403, "forbidden")
        assert (await engine.policy()).generation == live.generation
        probe = author.files.bearer("probe")
        answer = await session(http, orchestrator, probe, deployment_mode="production-debug")
        assert (answer["generation"], answer["policy_hash"]) == (second.generation, second.checksum)
        assert (await engine.policy()).checksum == second.checksum

    async def test_a_storm_of_forced_refreshes_becomes_few_reads(
        self, start: Start, wire: Wire, author: Author, live: CurrentConstitution, http: httpx.AsyncClient
    ) -> None:
        orchestrator, _ = await both(start)
        before = len(wire.requests)
        probe = author.files.bearer("probe")
        storm = [session(http, orchestrator, probe, deployment_mode="production-debug") for _ in range(60)]
        answers = await asyncio.gather(*storm)
        assert {answer["generation"] for answer in answers} == {live.generation}
        reads = len(wire.requests) - before
        assert 2 <= reads < 60, reads  # two of each would do; a busy machine spreads the storm

    async def test_production_debug_without_a_verified_answer_is_unavailable(
        self, start: Start, wire: Wire, author: Author, live: CurrentConstitution, http: httpx.AsyncClient
    ) -> None:
        orchestrator, _ = await both(start)
        forger = Forger(author.files)
        forged = forger.current(live.generation + 1, document("9.0.0"), signing_key=forger.stranger)
        wire.be(Fault(body=forged.model_dump_json().encode(), etag='"forged"'))
        url = f"{orchestrator.url}/v1/sessions/start"
        debug = {**READING, "deployment_mode": "production-debug"}
        answer = await http.post(url, json=debug, headers=author.files.bearer("probe"))
        assert answer.status_code == 503
        assert (await session(http, orchestrator))["policy_hash"] == live.checksum

    async def test_without_constitution_service_sessions_go_on_by_the_last_good_document(
        self, start: Start, wire: Wire, live: CurrentConstitution, http: httpx.AsyncClient
    ) -> None:
        orchestrator, _ = await both(start)
        wire.cut()
        for _ in range(3):
            answer = await session(http, orchestrator)
            assert (answer["decision"], answer["policy_hash"]) == ("allow", live.checksum)
        assert "unavailable" in str((await orchestrator.policy()).last_error)

    async def test_without_any_release_sessions_are_denied(
        self, start: Start, service_environment: ServiceEnvironment, http: httpx.AsyncClient
    ) -> None:
        orchestrator, _ = await both(start, service_environment)
        for mode in ("production", "production-debug"):
            probe = service_environment.files.bearer("probe")
            answer = await session(http, orchestrator, probe, deployment_mode=mode)
            assert (answer["decision"], answer["reason"]) == ("deny", "no_constitution")
            assert answer["policy_hash"] is None
            assert answer["session_id"] is None


class TestEngines:
    async def test_engines_are_tried_in_turn_and_without_any_the_session_is_refused(
        self, start: Start, live: CurrentConstitution, http: httpx.AsyncClient
    ) -> None:
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
        assert answer["policy_hash"] == live.checksum
        await second.start().ready()
        assert (await session(http, orchestrator))["decision"] == "allow"

    @pytest.mark.usefixtures("live")
    async def test_something_that_is_no_engine_is_never_believed(
        self, start: Start, shared_environment: ServiceEnvironment, http: httpx.AsyncClient
    ) -> None:
        orchestrator = await start("orchestrator", POLICY_ENGINE_URL=shared_environment.service.url).ready()
        assert (await session(http, orchestrator))["reason"] == "engine_unreachable"

    async def test_an_engine_that_stays_behind_is_not_followed(
        self, start: Start, author: Author, live: CurrentConstitution, http: httpx.AsyncClient
    ) -> None:
        """Its way to constitution-service is frozen on the release before."""
        behind = Wire()
        frozen_on(behind, live)
        second = await author.released()
        engine = await start("policy_engine", CONSTITUTION_SERVICE_URL=behind.url).ready()
        orchestrator = await start("orchestrator", POLICY_ENGINE_URL=engine.url).ready()
        answer = await session(http, orchestrator)
        wanted = ("deny", "engine_disagrees", second.generation)
        assert (answer["decision"], answer["reason"], answer["generation"]) == wanted
        behind.close()

    @pytest.mark.usefixtures("live")
    async def test_a_stale_orchestrator_denies_by_setting(
        self, start: Start, wire: Wire, http: httpx.AsyncClient
    ) -> None:
        impatient = {"POLL_SECONDS": "0.2", "MAX_STALENESS_SECONDS": "1", "STALENESS_ACTION": "deny"}
        orchestrator, _ = await both(start, **impatient)
        assert (await session(http, orchestrator))["decision"] == "allow"
        wire.cut()

        async def stale() -> bool:
            return bool((await session(http, orchestrator))["reason"] == "stale")

        await eventually(stale)


async def test_golden_vectors_and_the_next_session_after_a_release(
    start: Start, service_environment: ServiceEnvironment, http: httpx.AsyncClient
) -> None:
    author = service_environment.author
    orchestrator, engine = await both(start, service_environment)
    assert (await session(http, orchestrator))["reason"] == "no_constitution"

    first = await author.released()
    answer = await session(http, orchestrator)  # the very next one
    assert (answer["decision"], answer["generation"]) == ("allow", 1)
    assert answer["policy_hash"] == first.checksum
    probe = author.files.bearer("probe")
    for vector in VECTORS:
        body = vector.request.model_dump(mode="json")
        told = await http.post(f"{orchestrator.url}/v1/sessions/start", json=body, headers=probe)
        fields = {name: told.json()[name] for name in ("decision", "rule", "severity", "message", "reason")}
        assert vector.mismatch(PolicyDecision.model_validate(fields)) is None

    await author.released(rules=NOTHING)
    answer = await session(http, orchestrator, probe, deployment_mode="production-debug")
    assert (answer["decision"], answer["rule"], answer["generation"]) == ("deny", "none", 2)
    assert (await engine.policy()).checksum == answer["policy_hash"]
    assert orchestrator.stop() == 0
    assert engine.stop() == 0
