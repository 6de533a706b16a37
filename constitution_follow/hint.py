"""Reads a ``constitution.updated`` record as a hint. Only the statement inside it counts, once it has verified."""

import json

from pydantic import ValidationError

from constitution.errors import UntrustedError
from constitution.release import Envelope, ReleasePredicate
from constitution.strict_json import require_simple
from constitution.trust.trust_policy import TrustPolicy
from signatures.statements import verify_release

MAX_EVENT_BYTES = 1024 * 1024  # Kafka's own default limit of a message


def release_of(value: bytes | None, trust: TrustPolicy) -> ReleasePredicate:
    """Return the signed release that an event carries.

    Raises:
        UntrustedError: no statement, one that does not verify, another environment, or an event that says another
            generation than its own statement.
    """
    if value is None or len(value) > MAX_EVENT_BYTES:
        raise UntrustedError("the event has no value, or one above 1 MiB")
    try:
        require_simple(value)
        event = json.loads(value)
        envelope = Envelope.model_validate(event["statement"])
        generation = event["generation"]
    except (ValueError, KeyError, TypeError, RecursionError, ValidationError) as error:
        raise UntrustedError(f"the event cannot be read: {type(error).__name__}") from error
    release = verify_release(envelope, trust)
    if generation != release.generation:
        raise UntrustedError(f"the event says generation {generation!r}, its statement {release.generation}")
    return release
