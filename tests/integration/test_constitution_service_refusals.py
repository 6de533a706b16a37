"""What is refused, how it is said, and that it is audited. A valid token is never enough."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

from constitution.api import AuditEvent, LoadRequest, WorkflowRef
from constitution.checksum import checksum_of
from constitution.environment import Strategy
from constitution.errors import ConflictError, EvidenceError, NotApprovedError, UntrustedError
from constitution.release import Kind
from tests.helpers import eventually
from tests.world.author import Author, key
from tests.world.documents import following, soon
from tests.world.files import ENVIRONMENT
from tests.world.gate import junit_of
from tests.world.readings import Topics


async def leased(author: Author, request: LoadRequest) -> LoadRequest:
    lease = await author.lease(request.update_id)
    return request.model_copy(update={"fencing_token": lease.fencing_token})


async def test_a_valid_token_loads_nothing_that_the_board_did_not_approve(author: Author) -> None:
    document = author.draft("1.0.0")
    request = await leased(author, await author.prepared(document, expected_generation=0))
    assert request.change_request is not None
    assert request.test_evidence is not None
    plan = author.plan(request.update_id)
    bound: dict[str, Any] = {
        "change_request": request.change_request,
        "evidence": request.test_evidence,
        "plan": plan,
    }
    elsewhen = author.plan(request.update_id, not_before=datetime.now(UTC) + timedelta(minutes=1))
    unwatched = author.plan(request.update_id, watch=Strategy(watch_seconds=0))
    other = author.draft("1.0.1")
    refused = {
        "none": (),
        "one": author.approvals(document, **bound, members=("alva",)),
        "the same person twice": author.approvals(document, **bound, members=("alva", "alva")),
        "the author": author.approvals(document, **bound, members=("mara", "alva")),
        "other bytes": author.approvals(other, **bound),
        "another change request": author.approvals(document, **{**bound, "change_request": "CR-other"}),
        "other evidence": author.approvals(document, **{**bound, "evidence": None}),
        "no plan": author.approvals(document, **{**bound, "plan": None}),
        "another update": author.approvals(document, **{**bound, "plan": author.plan(str(uuid4()))}),
        "other rings": author.approvals(
            document, **{**bound, "plan": author.plan(request.update_id, rings=("canary", "default"))}
        ),
        "another time": author.approvals(document, **{**bound, "plan": elsewhen}),
        "each another strategy": author.approvals(document, **bound, members=("alva",))
        + author.approvals(document, **{**bound, "plan": unwatched}, members=("bruno",)),
        "another environment": author.approvals(document, **bound, environment="production"),
        "another kind": author.approvals(document, **bound, kind=Kind.REISSUE),
        "expired": author.approvals(document, **bound, expires_at="2020-01-01T00:00:00Z"),
        "one denies": author.approvals(document, **bound)
        + author.approvals(document, **bound, members=("chen",), decision="deny"),
    }
    for what, approvals in refused.items():
        with pytest.raises(NotApprovedError):
            await author.load(request.model_copy(update={"approvals": approvals}), f"load-{len(what)}-{uuid4().hex}")

    assert await author.worker.releases() == []
    assert (await author.load(request)).generation == 1


async def test_evidence_must_be_of_these_bytes_and_green(author: Author) -> None:
    document = author.draft("1.0.0")
    request = await leased(author, await author.prepared(document, expected_generation=0))
    assert request.change_request is not None
    policy, chaos = [await author.suite(name, document) for name in ("policy", "chaos")]

    async def refuse(**changes: Any) -> None:
        assert request.change_request is not None
        digest = await author.evidence(document, request.change_request, **changes)
        with pytest.raises(EvidenceError):
            await author.load(request.model_copy(update={"test_evidence": digest}), f"load-{uuid4().hex}")

    await refuse(checksum=checksum_of(b"other"))
    await refuse(version="9.9.9")
    await refuse(change_request="CR-other")
    await refuse(previous=checksum_of(b"other"))
    await refuse(suites=[])
    await refuse(suites=[policy])
    await refuse(suites=[policy, {**chaos, "tests": 0}])
    for count in ("failures", "errors", "skipped"):
        await refuse(suites=[{**policy, count: 1}, chaos])
    other = checksum_of(b"other")
    await refuse(suites=[policy, {**chaos, "served": []}])
    await refuse(suites=[policy, {**chaos, "served": [other]}])
    await refuse(suites=[policy, {**chaos, "served": [checksum_of(document), other]}])
    await refuse(suites=[policy, {**chaos, "tests": chaos["tests"] + 1}])  # its JUnit file counts one less
    await refuse(suites=[policy, {**chaos, "junit": other}])  # nobody stored it
    for stored in (b"<x/>", b"no XML", junit_of("chaos", [("a case", "failed")], served=checksum_of(document))):
        await refuse(suites=[policy, {**chaos, "junit": await author.assessor.put_blob(stored)}])
    with pytest.raises(EvidenceError):
        await author.load(request.model_copy(update={"test_evidence": checksum_of(b"none")}), f"load-{uuid4().hex}")
    with pytest.raises(EvidenceError):
        await author.load(request.model_copy(update={"test_evidence": None}), f"load-{uuid4().hex}")
    assert await author.worker.releases() == []


async def test_an_update_must_follow_what_is_live_and_be_higher_than_all_before(author: Author) -> None:
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    wrong = {
        "previous": author.draft("1.1.0"),
        "version-order": author.draft("1.0.0", following(first), previous=None),
        "about-to-expire": author.draft("1.2.0", following(first), expires_at=soon(hours=3)),
    }
    for code, document in wrong.items():
        request = await author.prepared(document, expected_generation=1)
        lease = await author.lease(request.update_id)
        answer = await author.post_load(request.model_copy(update={"fencing_token": lease.fencing_token}))
        assert answer.status_code == 422, code
        assert code in {issue["code"] for issue in answer.json()["issues"]}
        await author.release_lease(lease)


async def test_only_signed_documents_of_this_environment_are_stored(author: Author) -> None:
    document = author.draft("1.0.0")
    with pytest.raises(UntrustedError):
        await author.worker.push(document, [author.sign(document + b" ")])
    with pytest.raises(UntrustedError):
        await author.worker.push(document, [author.sign(document, "alva")])
    elsewhere = author.draft("1.0.0", environment="elsewhere")
    answer = await upload(author, elsewhere, author.sign(elsewhere))
    assert (answer.status_code, answer.json()["issues"][0]["path"]) == (422, "/environment")
    broken = await upload(author, b'{"version": 1, "version": 2}', author.sign(document))
    assert (broken.status_code, broken.json()["code"]) == (422, "invalid-document")


async def upload(author: Author, document: bytes, *signatures: bytes) -> httpx.Response:
    files = [("document", ("d", document)), *(("signature", ("s", data)) for data in signatures)]
    headers = author.files.bearer("artifacts:write", "worker")
    return await author.http.post("/v1/constitution/artifacts", files=files, headers=headers)


async def test_a_wrong_scope_is_refused_and_audited_as_ocsf(author: Author, topics: Topics) -> None:
    update = str(uuid4())
    body = {"update_id": update, "kind": "update"}
    tokens = {
        "none": {},
        "rubbish": {"Authorization": "Bearer rubbish"},
        "another scope": author.files.bearer("load:write", "worker"),
        "not granted": author.files.bearer("lease:write", "gate"),
    }
    for headers in tokens.values():
        answer = await author.http.post(
            "/v1/constitution/lease", json=body, headers={**headers, "Idempotency-Key": key(update, "lease")}
        )
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
        assert answer.headers["content-type"] == "application/problem+json"
    schema = OcsfJsonSchemaEmbedded(get_ocsf_schema("1.6.0")).get_class_schema("api_activity")

    async def audited() -> list[dict[str, Any]]:
        found = [record.value for record in await topics.audit()]
        refused = [event for event in found if event["api"]["operation"] == "lease.refused"]
        assert len(refused) == len(tokens)
        return refused

    for event in await eventually(audited):
        assert list(Draft202012Validator(schema).iter_errors(event)) == []
        assert event["status"] == "Failure"
        assert event["unmapped"]["code"] == "forbidden"


async def test_decisions_and_reports_are_audited_once(author: Author, topics: Topics) -> None:
    result = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    event = AuditEvent(
        id=f"reported-{uuid4()}",
        update_id=str(uuid4()),
        workflow=WorkflowRef(workflow_id="w", run_id="r"),
        activity="update.rejected",
        success=False,
        message="refused by the board",
    )
    await author.worker.audit(event)
    await author.worker.audit(event)

    async def audited() -> list[dict[str, Any]]:
        found = [record.value for record in await topics.audit()]
        assert [e["metadata"]["uid"] for e in found].count(event.id) == 1
        return found

    events = await eventually(audited)
    operations = [event["api"]["operation"] for event in events]
    for expected in ("artifact.pushed", "change_request.created", "lease.acquired", "release.loaded"):
        assert operations.count(expected) == 1, expected
    assert operations.index("release.loaded") < operations.index("standing.recorded")
    loaded = next(event for event in events if event["api"]["operation"] == "release.loaded")
    assert loaded["unmapped"]["checksum"] == result.checksum


async def test_a_change_request_is_its_authors_own_and_its_id_is_taken_once(author: Author) -> None:
    checksum = await author.push(author.draft("1.0.0"))
    identity = await author.ask(checksum)
    await author.ask(checksum, identity)
    stored = await author.worker.change_request(identity)
    assert (stored.request.author, stored.request.checksum) == ("mara", checksum)
    with pytest.raises(ConflictError):
        await author.ask(checksum_of(b"another"), identity)


def deep(levels: int) -> bytes:
    return b'{"update_id":' + b"[" * levels + b"]" * levels + b"}"


HOSTILE: dict[str, tuple[bytes, int]] = {
    "not JSON": (b"{", 400),
    "no object": (b"[]", 422),
    "null": (b"null", 422),
    "empty": (b"", 422),
    "two of one key": (b'{"update_id":"a","update_id":"b"}', 400),
    "deep": (deep(100), 400),
    "very deep": (deep(30_000), 400),
    "not UTF-8": (b'{"update_id":"\xff"}', 400),
    "half a surrogate pair": (b'{"update_id":"\\ud800"}', 400),
    "NUL": (b'{"update_id":"\\u0000"}', 400),
    "NaN": (b'{"fencing_token":NaN}', 400),
    "endless number": (b'{"fencing_token":1e999}', 400),
    "huge integer": (b'{"fencing_token":' + b"9" * 5000 + b"}", 400),
    "beyond bigint": (b'{"fencing_token":99999999999999999999}', 400),
    "wrong types": (b'{"update_id":1,"kind":[],"rings":"default","fencing_token":"x"}', 422),
    "unknown field": (b'{"surprise":1}', 422),
    "2 MiB": (b'{"reason":"' + b"x" * (2 * 1024 * 1024) + b'"}', 413),
    "20 MiB": (b'{"reason":"' + b"x" * (20 * 1024 * 1024) + b'"}', 413),
}


@pytest.fixture(scope="module")
def routes() -> tuple[tuple[str, str, str], ...]:
    return (
        ("POST", "/v1/constitution/load", "load:write"),
        ("POST", "/v1/constitution/lease", "lease:write"),
        ("DELETE", "/v1/constitution/lease", "lease:write"),
        ("POST", "/v1/constitution/releases/1/standing", "standing:write"),
        ("POST", "/v1/constitution/evidence", "evidence:write"),
        ("POST", "/v1/constitution/attestations", "evidence:write"),
        ("POST", "/v1/constitution/audit", "audit:write"),
        ("POST", "/v1/constitution/validate", ""),
    )


async def test_hostile_bodies_are_refused_as_problems(author: Author, routes: tuple[tuple[str, str, str], ...]) -> None:
    for method, path, scope in routes:
        headers = {"Content-Type": "application/json", "Idempotency-Key": key(str(uuid4()), "x")}
        if scope:
            client = "assessor-client" if scope == "evidence:write" else "worker"
            headers["Authorization"] = f"Bearer {author.files.token(client, scope)}"
        for what, (body, status) in HOSTILE.items():
            answer = await author.http.request(method, path, content=body, headers=headers)
            assert answer.status_code == status, (method, path, what, answer.text[:300])
            assert answer.headers["content-type"] == "application/problem+json", (path, what)
            assert answer.json()["status"] == status
    ready = await author.http.get("/readyz")
    assert ready.status_code == 200


ODD: tuple[tuple[str, Callable[[httpx.AsyncClient], Any], int], ...] = (
    ("no such route", lambda http: http.get("/v1/nothing"), 404),
    ("another method", lambda http: http.put("/v1/constitution/load"), 405),
    ("a ring that is none", lambda http: http.get("/v1/constitution", params={"ring": "../x\x00"}), 422),
    ("a negative generation", lambda http: http.get("/v1/constitution", params={"min_generation": -1}), 422),
    ("a huge generation", lambda http: http.get("/v1/constitution", params={"min_generation": 10**30}), 422),
    ("generation 0", lambda http: http.get("/v1/constitution/releases/0"), 422),
    ("a generation beyond bigint", lambda http: http.get("/v1/constitution/releases/99999999999999999999"), 422),
    ("an unknown generation", lambda http: http.get("/v1/constitution/releases/7"), 404),
    ("no checksum", lambda http: http.get("/v1/constitution/artifacts/sha256:xyz"), 422),
    ("a path for a checksum", lambda http: http.get("/v1/constitution/artifacts/..%2f..%2fetc%2fpasswd"), 404),
    ("an unknown artifact", lambda http: http.get(f"/v1/constitution/artifacts/{checksum_of(b'no')}"), 404),
    ("an unknown blob", lambda http: http.get(f"/v1/constitution/blobs/{checksum_of(b'no')}"), 404),
    ("an unknown change request", lambda http: http.get("/v1/constitution/change-requests/CR-0"), 404),
    ("another media type", lambda http: http.post("/v1/constitution/load", content=b"a: 1"), 415),
    ("an unknown schema version", lambda http: http.get("/v1/constitution/schema?schema_version=9"), 400),
    (
        "a form without a document",
        lambda http: http.post("/v1/constitution/validate", files={"signature": b"x"}),
        422,
    ),
    (
        "a broken form",
        lambda http: http.post(
            "/v1/constitution/validate", content=b"--x", headers={"Content-Type": "multipart/form-data; boundary=y"}
        ),
        422,
    ),
    (
        "a form without a boundary",
        lambda http: http.post(
            "/v1/constitution/validate", content=b"--x", headers={"Content-Type": "multipart/form-data"}
        ),
        422,
    ),
)


async def test_odd_requests_are_answered_with_problems(author: Author) -> None:
    for what, ask, status in ODD:
        answer = await ask(author.http)
        assert answer.status_code == status, (what, answer.status_code, answer.text[:300])
        assert answer.headers["content-type"] == "application/problem+json", what


async def test_too_large_uploads_are_refused(author: Author) -> None:
    document = author.draft("1.0.0")
    large = await upload(author, b"x" * (1024 * 1024 + 1), author.sign(document))
    many = await upload(author, document, *([author.sign(document)] * 17))
    empty = await upload(author, document, b"")
    huge = await upload(author, b"x" * (5 * 1024 * 1024), author.sign(document))

    assert [r.status_code for r in (large, many, empty, huge)] == [413, 422, 400, 413]


async def test_calls_that_change_something_need_a_key_of_this_update(author: Author) -> None:
    update = str(uuid4())
    headers = author.files.bearer("lease:write", "worker")
    for given in (None, "x", f"production/{update}/lease", f"{ENVIRONMENT}/{uuid4()}/lease", "k" * 300):
        sent = headers if given is None else {**headers, "Idempotency-Key": given}
        answer = await author.http.post(
            "/v1/constitution/lease", json={"update_id": update, "kind": "update"}, headers=sent
        )
        assert answer.status_code in {400, 422}, given
        assert json.loads(answer.content)["type"].startswith("urn:somaagenthub:problem:")


async def test_blobs_come_back_exactly(author: Author) -> None:
    data = bytes(range(256)) * 100
    digest = await author.assessor.put_blob(data)
    assert digest == await author.assessor.put_blob(data)
    assert await author.worker.blob(digest) == data


async def test_operations_pages_answer(author: Author) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/docs", "/openapi.json", "/v1/constitution/schema"):
        assert (await author.http.get(path)).status_code == 200, path
    assert "constitution_relay_leader" in (await author.http.get("/metrics")).text
