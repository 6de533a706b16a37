"""The chain of the audit stream: each event's number and its link to the event before, and the signed head.

The number is OCSF's own ``metadata.sequence``. OCSF 1.6.0 has no attribute for the link, and its ``metadata`` takes no
others (``additionalProperties`` is false there); ``unmapped`` is what it leaves to the source of an event. So the link
is ``unmapped.previous_event``: the checksum of the RFC 8785 bytes of the event before it, null in the first. Those
bytes are what lies on the topic; a SIEM that writes the same JSON in another order changes no checksum.
"""

import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from constitution.audit_head import AUDIT_HEAD_PREDICATE, AuditHead
from constitution.errors import UntrustedError
from constitution.release import Envelope
from constitution.trust.trust_policy import TrustPolicy
from signatures import dsse
from signatures.statements import IN_TOTO, read_bound, statement

LINK = "previous_event"
_MAX_INTEGER = 2**53 - 1  # RFC 8785 3.2.2.3: what every reader of JSON takes for the same number


def seal(event: str, sequence: int, previous: str | None) -> bytes:
    """Return an OCSF event with its number and link, in RFC 8785 bytes.

    Args:
        event: JSON text of the event.
        sequence: its number.
        previous: checksum of the event before it; None for the first.

    Raises:
        ValueError: it is no JSON object.
    """
    value = _sayable(json.loads(event))
    if not isinstance(value, dict):
        raise ValueError("the event is no JSON object")  # noqa: TRY004 - one kind of error for unreadable text
    value["metadata"] = {**_object(value.get("metadata")), "sequence": sequence}
    value["unmapped"] = {**_object(value.get("unmapped")), LINK: previous}
    return dsse.statement_bytes(value)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _sayable(value: Any) -> Any:
    """Return JSON that has RFC 8785 bytes, the same ones after every reading: other numbers and characters as text.

    A detail that somebody reported must not stop the stream.
    """
    if isinstance(value, dict):
        return {_text(name): _sayable(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_sayable(item) for item in value]
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and not -_MAX_INTEGER <= value <= _MAX_INTEGER:
        return str(value)  # NaN as well: it is between no two numbers
    return value


def _text(value: str) -> str:
    return value.encode("utf-8", "replace").decode()  # a half of a surrogate pair has no UTF-8


def sign_head(head: AuditHead, keyid: str, private_key: Ed25519PrivateKey) -> Envelope:
    """Sign a head with a service key."""
    return dsse.sign_ed25519(statement(AUDIT_HEAD_PREDICATE, _subject(head), head), IN_TOTO, keyid, private_key)


def verify_head(envelope: Envelope, trust: TrustPolicy) -> AuditHead:
    """Return what a head says, once a pinned service key has been seen to have signed it.

    Raises:
        UntrustedError: not signed by such a key, no head, or of another environment than the trust policy's.
    """
    dsse.verify_service(envelope, trust)
    head = read_bound(envelope, AUDIT_HEAD_PREDICATE, AuditHead, _subject)
    if head.environment != trust.environment:
        raise UntrustedError(f"the head is of {head.environment}, not of {trust.environment}")
    return head


def _subject(head: AuditHead) -> dict[str, Any]:
    return {"name": f"audit event {head.sequence}", "digest": {"sha256": head.hash.removeprefix("sha256:")}}
