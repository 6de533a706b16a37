"""What somebody who sits on the network, or in the cache, but has no key, can offer to an engine."""

import json
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime

from chaos.proxy import Fault
from chaos.signing import Signing
from chaos.stack import Stack

from constitution.checksum import checksum_of
from constitution.release import CurrentConstitution, Kind


def everything_allowed(document: bytes) -> bytes:
    """Return the document with all its rules turned into permission: what an attacker would want to be obeyed."""
    value = json.loads(document)
    value["default_effect"] = "allow"
    for rule in value["rules"]:
        rule["effect"] = "allow"
    return json.dumps(value).encode()


def offers(stack: Stack) -> Iterator[tuple[str, Fault]]:
    """Yield a name and a fault for each; every one must change nothing."""
    real = CurrentConstitution.model_validate_json(stack.current())
    assert real.document is not None
    wanted = everything_allowed(real.document.encode())
    yield "garbage bytes", Fault(body=secrets.token_bytes(4096))
    yield "no JSON object", Fault(body=b"[]")
    yield "an error page", Fault(status=500, body=b"<html>Internal Server Error</html>")
    yield (
        "an unsigned word that there is no constitution",
        Fault(status=404, body=b'{"type": "urn:somaagenthub:problem:no-constitution", "status": 404}'),
    )
    yield "half of the true answer", Fault(trickle=True)
    yield "another document under the true statement", _answer(real, document=wanted.decode())
    yield "another document and checksum", _answer(real, document=wanted.decode(), checksum=checksum_of(wanted))
    yield "a higher generation under the true statement", _answer(real, generation=real.generation + 1)
    yield "no document under the true statement", _answer(real, document=None, checksum=None, kind=Kind.WITHDRAW)
    yield "a release signed by a stranger", _forged(stack, real, wanted)


def _answer(real: CurrentConstitution, **changes: object) -> Fault:
    return Fault(body=real.model_copy(update=changes).model_dump_json().encode())


def _forged(stack: Stack, real: CurrentConstitution, document: bytes) -> Fault:
    """Return a whole release, well-formed in everything, made with the keys of another ceremony."""
    stranger = Signing(stack.folder / "stranger", real.environment)
    forged = stranger.answer(document, generation=real.generation + 1, now=datetime.now(UTC))
    return Fault(body=forged.model_dump_json().encode())
