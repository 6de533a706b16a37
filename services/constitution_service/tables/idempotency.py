"""``Idempotency-Key``: the same call again gets the same answer, and happens once.

Only answers that were committed are stored, in the transaction that they answer for. The same key with another body is
refused; ``fencing_token``, ``workflow``, ``undoes`` and ``orders`` are not compared, because a retried
step may hold a newer token, run under another run id, or come from a worker of an older build, and ask for the same.
"""

import hashlib
import re
from typing import Annotated

import rfc8785
from fastapi import Header

from adapters.postgres import Connection
from constitution.model import Model
from services.constitution_service.errors import IdempotencyKeyError, IdempotencyMismatchError

_NOT_COMPARED = frozenset({"fencing_token", "workflow", "undoes", "orders"})
_KEY = re.compile(r"(?P<environment>[^/]{1,63})/(?P<update_id>[^/]{36})/(?P<step>[A-Za-z0-9][A-Za-z0-9._:-]{0,127})")

KeyHeader = Annotated[
    str | None,
    Header(alias="Idempotency-Key", description="`<environment>/<update_id>/<step>`", max_length=256),
]


def read_key(header: str | None, *, environment: str, update_id: str) -> str:
    """Return the key of a call.

    Raises:
        IdempotencyKeyError: it is missing, or is of another environment or update than the body.
    """
    if header is None:
        raise IdempotencyKeyError(
            "this call needs the header Idempotency-Key", hint=f"Idempotency-Key: {environment}/{update_id}/<step>"
        )
    found = _KEY.fullmatch(header)
    if found is None or found["environment"] != environment or found["update_id"] != update_id:
        raise IdempotencyKeyError(
            "Idempotency-Key does not name this environment, this update and a step",
            hint=f"Idempotency-Key: {environment}/{update_id}/<step>",
        )
    return header


def fingerprint(route: str, body: Model) -> str:
    """Return what is compared: route and body without ``fencing_token`` and ``workflow``, in RFC 8785 bytes."""
    compared = {name: value for name, value in body.model_dump(mode="json").items() if name not in _NOT_COMPARED}
    return hashlib.sha256(rfc8785.dumps({"route": route, "body": compared})).hexdigest()


async def stored_answer(connection: Connection, environment: str, key: str, expected: str) -> str | None:
    """Return the answer that was committed for this key, or None.

    Call it after the environment's lease row is locked: then no other call with the key is under way.

    Raises:
        IdempotencyMismatchError: the key was used for something else.
    """
    row = await connection.fetchrow(
        "SELECT fingerprint, answer FROM idempotency_keys WHERE environment = $1 AND key = $2", environment, key
    )
    if row is None:
        return None
    if row["fingerprint"] != expected:
        raise IdempotencyMismatchError(
            "this Idempotency-Key was used before with another body", hint="a new step needs a new key"
        )
    answer: str = row["answer"]
    return answer


async def store_answer(connection: Connection, environment: str, key: str, expected: str, answer: str) -> None:
    """Remember the answer, in the transaction that it answers for."""
    await connection.execute(
        "INSERT INTO idempotency_keys (environment, key, fingerprint, answer) VALUES ($1, $2, $3, $4)",
        environment,
        key,
        expected,
        answer,
    )
