"""What somebody with a genuine token sends and no signature covers: each is refused, and each refusal is audited."""

import base64
import json
from collections import Counter
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from constitution.api import ChangeRequest, LoadRequest
from constitution.checksum import checksum_of
from constitution.errors import ConstitutionError
from constitution.release import Envelope
from constitution.trust.attestation import GatePredicate
from signatures.attestations import sign_attestation
from signatures.statements import sign_change_request
from signatures.tokens import mint
from tests.helpers import eventually
from tests.world.author import Author, key
from tests.world.files import ENVIRONMENT
from tests.world.readings import Topics


class Attack:
    """Does what must be refused, and remembers which audit event must tell of it."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self._expected: Counter[tuple[str, str]] = Counter()

    async def refused(self, route: str, call: Awaitable[Any], code: str) -> None:
        with pytest.raises(ConstitutionError) as error:
            await call
        assert error.value.code == code, error.value.diagnostics()
        self._expected[f"{route}.refused", code] += 1

    def answered(self, route: str, answer: httpx.Response, code: str) -> None:
        assert (answer.json()["code"], answer.status_code // 100) == (code, 4), answer.text
        self._expected[f"{route}.refused", code] += 1

    async def are_audited(self) -> None:
        async def told() -> bool:
            events = [record.value for record in await self._topics.audit()]
            refusals = [event for event in events if event["api"]["operation"].endswith(".refused")]
            found = Counter((event["api"]["operation"], event["unmapped"]["code"]) for event in refusals)
            assert found == self._expected
            assert {event["status"] for event in refusals} == {"Failure"}
            return True

        await eventually(told)


@pytest.fixture
def attack(topics: Topics) -> Attack:
    return Attack(topics)


def changed(envelope: Envelope, old: bytes, new: bytes) -> Envelope:
    """A signed statement that says something else."""
    payload = base64.b64decode(envelope.payload)
    assert old in payload
    return envelope.model_copy(update={"payload": base64.b64encode(payload.replace(old, new)).decode()})


async def test_forged_and_foreign_files_are_refused_and_audited(author: Author, attack: Attack) -> None:
    document = author.draft("1.0.0")
    signature = author.sign(document)
    good = author.sign(author.draft("1.0.1"))
    indented = json.dumps(json.loads(document), indent=7).encode()
    for text in (
        document[:-2] + b" }",
        indented,
        b"\xef\xbb\xbf" + document,
        document.replace(b"\n", b"\r\n") + b"\r\n",
    ):
        code = "invalid-document" if text.startswith(b"\xef") else "untrusted"
        await attack.refused("artifacts", author.worker.push(text, [signature]), code)
    await attack.refused("artifacts", author.worker.push(document, [good]), "untrusted")
    await attack.refused("artifacts", author.worker.push(document, [signature + b"x"]), "untrusted")
    await attack.refused("artifacts", author.worker.push(document, [author.sign(document, "alva")]), "untrusted")
    await attack.refused("artifacts", author.worker.push(document + document, [signature]), "invalid-document")
    twice = document.replace(b'"title"', b'"title": "x", "title"', 1)
    await attack.refused("artifacts", author.worker.push(twice, [author.sign(twice)]), "invalid-document")
    elsewhere = author.draft("1.0.0", environment="production")
    await attack.refused("artifacts", author.worker.push(elsewhere, [author.sign(elsewhere)]), "invalid-document")

    request = ChangeRequest(id="CR-7", author="mara", checksum=checksum_of(document), reason="needed")
    envelope = sign_change_request(request, author.files.tsk("mara"))
    asked = author.operator.create_change_request
    await attack.refused("change-requests", asked(changed(envelope, b"needed", b"wanted")), "untrusted")
    by_another = sign_change_request(request, author.files.tsk("alva"))
    await attack.refused("change-requests", asked(by_another), "untrusted")
    await attack.are_audited()


async def test_forged_and_replayed_orders_are_refused_and_audited(author: Author, attack: Attack) -> None:
    update_id = str(uuid4())
    order = author.order_request(update_id, "hold")
    assert order.envelope is not None
    accept = author.worker.accept_order
    lie = changed(order.envelope, b"the test asks", b"nobody asks!!")
    await attack.refused("orders", accept(order.model_copy(update={"envelope": lie})), "not-approved")
    await attack.refused("orders", accept(order.model_copy(update={"envelope": None, "reason": "x"})), "not-approved")
    await attack.refused("orders", accept(order.model_copy(update={"update_id": str(uuid4())})), "not-approved")
    late = author.order_request(update_id, "hold", expires_at=datetime.now(UTC) - timedelta(seconds=1))
    await attack.refused("orders", accept(late), "not-approved")
    await accept(order)
    await attack.refused("orders", accept(order.model_copy(update={"attempt": "elsewhere/1"})), "order-used")
    await attack.are_audited()


async def test_loads_that_nothing_allows_are_refused_and_audited(author: Author, attack: Attack) -> None:
    document = author.draft("1.0.0")
    request = await author.prepared(document, expected_generation=0)
    assert request.change_request is not None

    def load(**changes: Any) -> Awaitable[Any]:
        return author.load(request.model_copy(update=changes), f"load-{uuid4().hex}")

    await attack.refused("load", load(), "lease-lost")  # nobody has taken it
    old = await author.lease(request.update_id)
    await author.release_lease(old)
    lease = await author.lease(request.update_id)
    await attack.refused("load", load(fencing_token=old.fencing_token), "lease-lost")
    await attack.refused("load", load(fencing_token=lease.fencing_token + 1), "lease-lost")
    held = {"fencing_token": lease.fencing_token}
    other = await author.prepared(author.draft("1.0.1"), expected_generation=0)
    await attack.refused("load", load(**held, approvals=other.approvals), "not-approved")
    softer = tuple(changed(one, b'"watch_seconds":', b'"watch_second":') for one in request.approvals)
    await attack.refused("load", load(**held, approvals=softer), "not-approved")
    await attack.refused("load", load(**held, test_evidence=other.test_evidence), "evidence-refused")
    await attack.refused("load", load(**held, test_evidence=checksum_of(b"invented")), "evidence-refused")
    record = await author.record(
        document, request.change_request, update_id=request.update_id, gate_digest=checksum_of(b"")
    )
    unsigned = await author.assessor.put_evidence(record)
    await attack.refused("load", load(**held, test_evidence=unsigned), "evidence-refused")
    said = GatePredicate.of(record, unsigned)
    worker = author.files.key("worker")
    forged = sign_attestation(said, "assessor", worker.private_key)
    await attack.refused("attestations", author.assessor.put_attestation(forged), "untrusted")
    assert await author.worker.releases() == []
    await attack.are_audited()
    assert (await author.load(request.model_copy(update=held))).generation == 1


async def test_tokens_that_do_not_hold_are_refused_and_audited(author: Author, attack: Attack) -> None:
    document = author.draft("1.0.0")
    request: LoadRequest = await author.prepared(document, expected_generation=0)
    worker, now = author.files.key("worker"), datetime.now(UTC)

    def token(**changes: Any) -> str:
        return mint(worker, **{"environment": ENVIRONMENT, "scopes": ["load:write"], "now": now, **changes})

    _, body, _ = token().split(".")
    header = base64.urlsafe_b64encode(b'{"alg":"none","kid":"worker"}').rstrip(b"=").decode()
    for what, text in {
        "no scope": token(scopes=[]),
        "another scope": token(scopes=["lease:write"]),
        "expired": token(now=now - timedelta(minutes=10)),
        "of tomorrow": token(now=now + timedelta(days=1)),
        "alg none": f"{header}.{body}.",
        "another audience": token(environment="production"),
    }.items():
        answer = await author.http.post(
            "/v1/constitution/load",
            content=request.model_dump_json(),
            headers={
                "Authorization": f"Bearer {text}",
                "Idempotency-Key": key(request.update_id, f"load-{len(what)}"),
                "Content-Type": "application/json",
            },
        )
        attack.answered("load", answer, "forbidden")
    await attack.are_audited()
