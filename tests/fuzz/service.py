"""Changed requests to a real constitution-service: no 500, no silence, nothing accepted that nobody signed."""

import json
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx

from constitution.api import ChangeRequest
from constitution.checksum import checksum_of
from constitution.trust.attestation import GatePredicate
from signatures.attestations import sign_attestation
from signatures.statements import sign_change_request
from tests.fuzz.mutations import mutated
from tests.fuzz.table import Table
from tests.world.author import Author, key

JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Call:
    """One call to change.

    Args:
        genuine: what is changed: the body, a file or the token.
        send: it, changed.
        accepts: whether an answer of 2xx may be: nothing changed that was signed.
    """

    genuine: bytes
    send: Callable[[bytes], Awaitable[httpx.Response]]
    accepts: Callable[[Any], bool]


def never(_: Any) -> bool:
    return False


async def calls(author: Author) -> Mapping[str, Call]:
    """Every call, with what is genuine."""
    files, http, document = author.files, author.http, author.draft("1.0.0")
    signature, checksum = author.sign(document), checksum_of(document)
    request = ChangeRequest(id="CR-1", author="mara", checksum=checksum, reason="needed")
    asked = sign_change_request(request, files.tsk("mara"))
    order = author.order_request(str(uuid4()), "hold")
    prepared = await author.prepared(document, expected_generation=0)
    lease = await author.lease(prepared.update_id)
    # One approval is not enough: no change of this load may make it one that the board decided.
    load = prepared.model_copy(update={"fencing_token": lease.fencing_token, "approvals": prepared.approvals[:1]})
    record = await author.record(document, load.change_request or "", update_id=load.update_id)
    attester = files.key("assessor")
    seen = sign_attestation(GatePredicate.of(record, checksum), attester.id, attester.private_key)
    denial = author.denial("CR-1", checksum)
    lease_call = json.dumps({"update_id": str(uuid4()), "kind": "update", "workflow_id": "w"}).encode()

    def headers(scope: str, client: str = "worker") -> dict[str, str]:
        return {**files.bearer(scope, client), "Idempotency-Key": key(load.update_id, uuid4().hex)}

    def posts(path: str, scope: str, client: str = "worker") -> Callable[[bytes], Awaitable[httpx.Response]]:
        return lambda body: http.post(path, content=body, headers={**JSON, **headers(scope, client)})

    def pushes(path: str, text: bytes | None, sig: bytes | None) -> Callable[[bytes], Awaitable[httpx.Response]]:
        return lambda data: http.post(
            path,
            files=[("document", ("d", text or data)), ("signature", ("s", sig or data))],
            headers=headers("artifacts:write"),
        )

    async def with_token(token: bytes) -> httpx.Response:
        bearer = {"Authorization": b"Bearer " + bytes(byte if 32 < byte < 127 else 63 for byte in token)}
        return await http.post("/v1/constitution/lease", content=lease_call, headers=_raw({**JSON, **bearer}))

    base = "/v1/constitution"
    return {
        "service: push, document": Call(
            document, pushes(f"{base}/artifacts", None, signature), lambda said: said["checksum"] == checksum
        ),
        "service: push, signature": Call(
            signature, pushes(f"{base}/artifacts", document, None), lambda said: said["signers"] == ["mara"]
        ),
        "service: validate": Call(
            document, pushes(f"{base}/validate", None, signature), lambda said: said["valid"] is False
        ),
        "service: change request": Call(
            asked.model_dump_json().encode(),
            posts(f"{base}/change-requests", "change-requests:write", "operator"),
            lambda said: ChangeRequest.model_validate(said["request"]) == request,
        ),
        "service: order": Call(
            order.model_dump_json().encode(),
            posts(f"{base}/orders", "lease:write"),
            lambda said: (said["person"], said["order"], said["reason"]) == ("olga", "hold", "the test asks"),
        ),
        "service: denial": Call(
            denial.model_dump_json().encode(), posts(f"{base}/change-requests/CR-1/denial", "lease:write"), never
        ),
        "service: evidence": Call(
            record.model_dump_json().encode(), posts(f"{base}/evidence", "evidence:write", "assessor-client"), bool
        ),
        "service: attestation": Call(
            seen.model_dump_json().encode(), posts(f"{base}/attestations", "evidence:write", "assessor-client"), bool
        ),
        "service: load": Call(load.model_dump_json().encode(), posts(f"{base}/load", "load:write"), never),
        "service: token": Call(files.token("worker", "load:write").encode(), with_token, never),
    }


def _raw(headers: Mapping[str, str | bytes]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), text if isinstance(text, bytes) else text.encode()) for name, text in headers.items()]


async def fuzz_service(author: Author, inputs: int, seed: int, table: Table) -> None:
    """Send changed requests of every kind, as many of each; the service must then answer as before."""
    every = await calls(author)
    for name, call in every.items():
        rng = random.Random(f"{seed} {name}")  # noqa: S311 - to be repeated
        for _ in range(inputs // len(every)):
            data = mutated(rng, call.genuine)
            if data != call.genuine:
                await _one(name, call, data, table)
    assert (await author.http.get("/readyz")).status_code == 200
    assert await author.worker.releases() == []


async def _one(name: str, call: Call, data: bytes, table: Table) -> None:
    try:
        answer = await call.send(data)
    except httpx.HTTPError as error:
        table.found(name, f"no answer: {error!r}", data)
        return
    if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
        table.found(name, f"{answer.status_code} {answer.text[:300]}", data)
    elif answer.is_success and not call.accepts(answer.json()):
        table.found(name, f"accepted: {answer.text[:300]}", data)
    else:
        table.count(name, "unchanged" if answer.is_success else "refused")
