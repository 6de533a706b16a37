"""Bad input fails the run at once: every problem listed, what to do next named, refusal told and audited."""

import asyncio
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.client import WorkflowHandle
from temporalio.common import RawValue

from constitution.release import CurrentConstitution, Previous
from tests.helpers import eventually
from tests.world.environment import End, RunningEnvironment

AT_ONCE = timedelta(seconds=20)  # on a busy machine; a stalled workflow task lasts for ever
UNKNOWN = "sha256:" + "0" * 64
ABSENT = "CR-never-filed"


def raw(data: bytes, encoding: bytes = b"json/plain") -> RawValue:
    """A payload that no client of ours would send."""
    return RawValue(Payload(metadata={"encoding": encoding}, data=data))


def nested(depth: int) -> bytes:
    return b'{"change_request": ' + b"[" * depth + b"]" * depth + b"}"


@dataclass(frozen=True)
class Bad:
    """Arguments of a start, and words that the refusal must hold."""

    arguments: tuple[Any, ...]
    words: tuple[str, ...]


GOOD = {"checksum": UNKNOWN, "change_request": "CR-1"}
SHAPES = {
    "no argument": Bad((), ("change_request", "Field required")),
    "two arguments": Bad((GOOD, GOOD), ("one JSON object", "2 arguments")),
    "two arguments that nobody can read": Bad((raw(b"\xff", b"no/such"), raw(b"{", b"json/plain")), ("2 arguments",)),
    "null": Bad((None,), ("change_request", "Field required")),
    "an array": Bad(([GOOD],), ("one JSON object", "list")),
    "a number": Bad((7,), ("one JSON object", "int")),
    "bytes": Bad((b"\x00\x01",), ("one JSON object",)),
    "no JSON": Bad((raw(b'{"checksum": '),), ("not JSON",)),
    "an unknown encoding": Bad((raw(b"{}", b"json/encrypted"),), ("one JSON object",)),
    "a key twice": Bad((raw(b'{"change_request": "CR-1", "change_request": "CR-2"}'),), ("twice", "change_request")),
    "bad UTF-8": Bad((raw(b'{"change_request": "\xff\xfe"}'),), ("not JSON",)),
    "too deep": Bad((raw(nested(20_000)),), ("not JSON",)),
    "an unknown field and a wrong type": Bad(
        ({"change_request": 7, "checksum": UNKNOWN, "force": True},), ("/change_request", "/force")
    ),
    "both sources": Bad(
        ({"change_request": "CR-1", "checksum": UNKNOWN, "document": "a.json", "signatures": ["a.sig"]},),
        ("either checksum, or document",),
    ),
    "no source": Bad(({"change_request": "CR-1"},), ("either checksum, or document",)),
    "a path": Bad(
        ({"change_request": "CR-1", "document": "../trust/trust.toml", "signatures": ["/etc/passwd"]},),
        ("/document", "/signatures/0"),
    ),
    "a moment without a time zone": Bad(({**GOOD, "not_before": "2031-01-01T00:00:00"},), ("time zone",)),
    "huge": Bad(({**GOOD, "change_request": "x" * 100_000},), ("bytes", "65536")),
}


async def refused(env: RunningEnvironment, *arguments: Any) -> tuple[str, End]:
    """Start an update with these arguments; it must fail at once, and be told and audited."""
    return await _refused(env, await _start(env, *arguments))


async def _start(env: RunningEnvironment, *arguments: Any) -> WorkflowHandle[Any, Any]:
    workflow_id = f"{env.names.namespace}/bad/{uuid4().hex[:8]}"
    return await env.start_run("ConstitutionUpdate", workflow_id, *arguments)


async def _refused(env: RunningEnvironment, handle: WorkflowHandle[Any, Any]) -> tuple[str, End]:
    before = await env.author.current()
    releases = len(await env.service.releases())
    end = await env.end(handle, AT_ONCE)
    assert (end.status, end.type) == ("FAILED", "Rejected")
    assert await env.author.current() == before
    assert len(await env.service.releases()) == releases
    return handle.id, end


@pytest.fixture(scope="module")
def started() -> dict[tuple[str, str], WorkflowHandle[Any, Any]]:
    """Runs by namespace and name of their shape: all are started when the first is looked at."""
    return {}


async def of_shape(
    env: RunningEnvironment, name: str, started: dict[tuple[str, str], WorkflowHandle[Any, Any]]
) -> WorkflowHandle[Any, Any]:
    if (env.names.namespace, name) not in started:  # the first test, or an environment that is new after a failure
        handles = await asyncio.gather(*(_start(env, *bad.arguments) for bad in SHAPES.values()))
        started.update({(env.names.namespace, one): handle for one, handle in zip(SHAPES, handles, strict=True)})
    return started[env.names.namespace, name]


async def require_told(env: RunningEnvironment, workflow_id: str) -> None:
    """The refusal is in the audit stream and in the channel, once."""
    audited = await eventually(lambda: env.reads.audited(workflow_id))
    assert audited.count("update.rejected") == 1
    assert len([text for text in env.reads.texts(workflow_id) if "rejected" in text]) == 1


@pytest.mark.parametrize("name", SHAPES)
async def test_an_input_of_the_wrong_shape_is_refused(
    env: RunningEnvironment, name: str, started: dict[tuple[str, str], WorkflowHandle[Any, Any]]
) -> None:
    bad = SHAPES[name]
    workflow_id, end = await _refused(env, await of_shape(env, name, started))
    assert all(word in end.message for word in bad.words), end.message
    assert "the input is one JSON object" in end.message
    await require_told(env, workflow_id)


async def test_every_problem_is_listed_at_once(env: RunningEnvironment, live: CurrentConstitution) -> None:
    workflow_id, end = await refused(env, {"checksum": UNKNOWN, "change_request": ABSENT, "strategy": "nowhere"})
    assert "no artifact with this checksum" in end.message
    assert f"there is no change request {ABSENT}" in end.message
    assert "'nowhere'" in end.message
    assert "push the document" in end.message
    await require_told(env, workflow_id)
    assert live == await env.author.current()


async def _in_the_inbox(
    env: RunningEnvironment, document: bytes, signature: bytes, identity: str | None = None
) -> dict[str, Any]:
    """Put a document and its signature into the inbox; return the input that names them."""
    name = uuid4().hex[:8]
    (env.files.directory / "inbox" / f"{name}.json").write_bytes(document)
    (env.files.directory / "inbox" / f"{name}.sig").write_bytes(signature)
    from constitution.checksum import checksum_of

    change_request = await env.author.ask(checksum_of(document), identity)
    return {"document": f"{name}.json", "signatures": [f"{name}.sig"], "change_request": change_request}


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("signed by nobody we know", ("maintainer",)),
        ("another document's signature", ("signature",)),
        ("breaks the schema", ("/default_effect", "/rules/0/when")),
        ("a lower version", ("version",)),
        ("another environment", ("environment", "production")),
        ("follows what is not live", ("previous",)),
        ("expired", ("expires",)),
    ],
)
async def test_a_document_that_may_not_go_live_is_refused(
    env: RunningEnvironment, live: CurrentConstitution, fault: str, words: tuple[str, ...]
) -> None:
    now = datetime.now(UTC)
    good = await env.author.next_draft()
    match fault:
        case "signed by nobody we know":
            document, signature = good, env.author.sign(good, "alva")  # a member of the board, and no maintainer
        case "another document's signature":
            document, signature = good, env.author.sign(good + b" ")
        case "breaks the schema":
            broken = json.loads(good)
            broken["default_effect"] = "perhaps"
            broken["rules"][0]["when"] = 7
            document = json.dumps(broken).encode()
            signature = env.author.sign(document)
        case "a lower version":
            document = json.dumps({**json.loads(good), "version": "0.9.0"}).encode()
            signature = env.author.sign(document)
        case "another environment":
            document = await env.author.next_draft(environment="production")
            signature = env.author.sign(document)
        case "follows what is not live":
            document = await env.author.next_draft(previous=Previous(version="0.9.0", checksum=UNKNOWN))
            signature = env.author.sign(document)
        case _:
            document = await env.author.next_draft(
                issued_at=now - timedelta(days=9), expires_at=now - timedelta(days=1)
            )
            signature = env.author.sign(document)
    workflow_id, end = await refused(env, await _in_the_inbox(env, document, signature))
    assert all(word in end.message for word in words), end.message
    assert "next: " in end.message
    await require_told(env, workflow_id)
    assert live == await env.author.current()


async def test_a_name_that_is_not_in_the_inbox_is_refused_with_all_others(env: RunningEnvironment) -> None:
    (env.files.directory / "inbox" / "link.json").symlink_to(env.files.directory / "keys" / "mara.tsk")
    workflow_id, end = await refused(
        env, {"document": "link.json", "signatures": ["absent.sig"], "change_request": ABSENT}
    )
    assert "link.json" in end.message
    assert "absent.sig" in end.message
    assert ABSENT in end.message
    await require_told(env, workflow_id)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ("reason",)),
        (({"reason": "x"}, {"reason": "y"}), ("2 arguments",)),
        (({"reason": ""},), ("/reason",)),
        (({"reason": "x", "to": 999},), ("there is no generation 999",)),
        (({"reason": "x", "bad_generation": 999},), ("there is no generation 999",)),
    ],
    ids=["nothing", "two", "no reason", "unknown target", "unknown release"],
)
async def test_a_rollback_that_makes_no_sense_is_refused(
    env: RunningEnvironment, live: CurrentConstitution, arguments: tuple[Any, ...], words: tuple[str, ...]
) -> None:
    workflow_id = f"{env.names.namespace}/bad-rollback/{uuid4().hex[:8]}"
    end = await env.end(await env.start_run("ConstitutionRollback", workflow_id, *arguments), AT_ONCE)
    assert (end.status, end.type) == ("FAILED", "Rejected")
    assert all(word in end.message for word in words), end.message
    assert "next: " in end.message
    assert "rollback.rejected" in await eventually(lambda: env.reads.audited(workflow_id))
    assert live == await env.author.current()


async def test_a_guard_is_never_started_by_hand(env: RunningEnvironment) -> None:
    workflow_id = f"{env.names.namespace}/bad-guard/{uuid4().hex[:8]}"
    end = await env.end(await env.start_run("ConstitutionGuard", workflow_id, {"reason": "x"}), AT_ONCE)
    assert (end.status, end.type) == ("FAILED", "Rejected")
