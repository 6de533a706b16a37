"""``constitution_follow``: a program that is no service obeys in process, and refuses what is not signed."""

import sys
from collections.abc import Iterator, MutableMapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from constitution.errors import UnavailableError
from constitution.release import CurrentConstitution
from constitution_follow import Caution, ConstitutionMiddleware, Decision, EvaluationRequest, Follower, OnLapse
from tests.helpers import eventually
from tests.world.author import Author
from tests.world.documents import rule
from tests.world.environment import ServiceEnvironment
from tests.world.files import CHECKOUT
from tests.world.processes import run_program
from tests.world.wire import Fault, Wire

RULES = [rule("reads", "allow", 'action == "read"'), rule("writes", "require_approval", 'action == "write"')]


@pytest.fixture
def author(shared_environment: ServiceEnvironment) -> Author:
    return shared_environment.author


@pytest.fixture
def wire(shared_environment: ServiceEnvironment) -> Iterator[Wire]:
    wire = Wire(shared_environment.service.url)
    yield wire
    wire.close()


@pytest.fixture
async def live(author: Author) -> CurrentConstitution:
    return await author.released(rules=RULES, default_effect="deny")


def follower(author: Author, wire: Wire, **options: Any) -> Follower:
    trust = author.files.directory / "trust" / "trust.toml"
    return Follower(service=wire.url, trust=trust, target="in-process", **{"poll_seconds": 0.1, **options})


def asks(action: str, tenant: str = "global") -> EvaluationRequest:
    return EvaluationRequest(tenant=tenant, action=action, time=datetime.now(UTC))


async def test_a_program_obeys_what_is_live_and_what_follows(
    author: Author, wire: Wire, live: CurrentConstitution
) -> None:
    registry = CollectorRegistry()
    async with follower(author, wire, registry=registry, tenants=["global"]) as policy:
        answers = policy.evaluate_all([asks("read"), asks("write", "unknown"), asks("delete")])
        assert [answer.decision for answer in answers] == [Decision.ALLOW, Decision.REQUIRE_APPROVAL, Decision.DENY]
        assert {(answer.policy_hash, answer.generation) for answer in answers} == {(live.checksum, live.generation)}
        assert policy.evaluate(asks("read")) == answers[0]
        assert policy.status().state == "live"
        assert (await policy.ready()).status == "ok"

        following = await author.released(rules=RULES[1:], default_effect="deny")
        await eventually(lambda: policy.status().generation == following.generation)
        assert policy.evaluate(asks("read")).decision is Decision.DENY
        name = "policy_engine_evaluations_total"
        labels = {"severity": answers[0].severity, "target": "in-process", "tenant": "global", "decision": "allow"}
        assert registry.get_sample_value(name, labels) == 2
        labels = {"severity": answers[1].severity, "target": "in-process", "tenant": "other"}
        assert registry.get_sample_value(name, labels | {"decision": "require_approval"}) == 1
    with pytest.raises(UnavailableError):
        policy.evaluate(asks("read"))
    assert (await policy.ready()).status == "unavailable"


async def test_a_program_starts_on_nothing_that_is_not_signed(
    author: Author, wire: Wire, live: CurrentConstitution
) -> None:
    assert live.document is not None
    forged = live.model_copy(update={"document": live.document.replace('"deny"', '"allow"')})
    assert forged != live
    wire.be(Fault(body=forged.model_dump_json().encode()))
    with pytest.raises(UnavailableError, match="untrusted_value"):
        async with follower(author, wire, wait_seconds=0.5):
            raise AssertionError("it must not start")
    wire.cut()
    with pytest.raises(UnavailableError, match="has not yet read the current constitution"):
        async with follower(author, wire, wait_seconds=0.5):
            raise AssertionError("it must not start")
    wire.repair()
    async with follower(author, wire) as policy:
        assert policy.status().generation == live.generation


async def test_a_program_that_loses_the_service_goes_on_or_denies_as_it_was_told(
    author: Author, wire: Wire, live: CurrentConstitution
) -> None:
    deny = Caution(stale=OnLapse.DENY, expired=OnLapse.DENY)
    async with (
        follower(author, wire, max_staleness_seconds=1) as patient,
        follower(author, wire, max_staleness_seconds=1, caution=deny) as strict,
    ):
        wire.cut()
        await eventually(lambda: strict.evaluate(asks("read")).reason == "stale")
        assert strict.evaluate(asks("read")).decision is Decision.DENY
        assert patient.status().state == "stale"
        assert patient.evaluate(asks("read")).decision is Decision.ALLOW
        with pytest.raises(UnavailableError):
            await patient.refresh()
        wire.repair()
        await eventually(lambda: strict.evaluate(asks("read")).decision is Decision.ALLOW)
        assert (await strict.refresh()).generation == live.generation


async def hello(scope: MutableMapping[str, Any], _receive: Any, send: Any) -> None:
    """An application that knows nothing of rules but may read the decision."""
    answer = scope.get("constitution")
    body = (answer.rule if answer else "unasked").encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": body})


def request_of(scope: MutableMapping[str, Any]) -> EvaluationRequest | None:
    action = str(scope["path"]).strip("/")
    return None if action == "health" else asks(action)


@pytest.mark.usefixtures("live")
async def test_the_middleware_lets_through_what_is_allowed(author: Author, wire: Wire) -> None:
    policy = follower(author, wire)
    app = ConstitutionMiddleware(hello, policy=policy, request_of=request_of)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://agent") as http:
        before = await http.get("/read")
        assert (before.status_code, before.headers["retry-after"]) == (503, "1")
        async with policy:
            answers = {path: await http.get(f"/{path}") for path in ("read", "write", "delete", "health")}
    assert (answers["read"].status_code, answers["read"].text) == (200, "reads")
    assert (answers["health"].status_code, answers["health"].text) == (200, "unasked")
    refused = {path: (answers[path].status_code, answers[path].json()["code"]) for path in ("write", "delete")}
    assert refused == {"write": (403, "require-approval"), "delete": (403, "deny")}
    assert "writes" in answers["write"].json()["detail"]
    assert answers["write"].headers["content-type"] == "application/problem+json"
    assert int(answers["write"].headers["constitution-generation"]) > 0


@pytest.mark.usefixtures("live")
async def test_the_middleware_closes_a_websocket_that_is_not_allowed(author: Author, wire: Wire) -> None:
    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "websocket.connect"}

    async with follower(author, wire) as policy:
        app = ConstitutionMiddleware(hello, policy=policy, request_of=request_of)
        await app({"type": "websocket", "path": "/delete"}, receive, send)
        assert sent == [{"type": "websocket.close", "code": 1008, "reason": "deny"}]
        await app({"type": "lifespan", "path": ""}, receive, send)  # passed on, not asked about
        assert len(sent) == 3


@pytest.mark.slow
@pytest.mark.usefixtures("live")
async def test_the_page_shows_a_program_that_runs(author: Author, wire: Wire, tmp_path: Path) -> None:
    page = (CHECKOUT / "docs" / "follow.md").read_text()
    program = tmp_path / "program.py"
    program.write_text(page.split("```python\n")[1].split("```")[0])
    settings = {
        "CONSTITUTION_SERVICE_URL": wire.url,
        "TRUST_FILE": str(author.files.directory / "trust" / "trust.toml"),
        "PYTHONPATH": str(CHECKOUT),
    }
    code, out, error = await run_program(settings, sys.executable, str(program))
    assert code == 0, error
    assert out.splitlines()[-1].startswith("deny None ")  # after what structlog says where nobody has set it up
