"""Reads the release statement out of a message that anybody may have written: a Redis value, an event on the topic.

Only the statement is proved (invariant 8), and so which release was live; nothing else of the message is. Who obeys a
release, or repeats what a message says of it, calls ``signatures.current.read_current``.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from constitution.errors import UntrustedError
from constitution.events import UpdatedEvent
from constitution.release import CurrentConstitution, ReleasePredicate
from constitution.trust.trust_policy import TrustPolicy
from constitution.untrusted import read_message
from signatures.statements import verify_release


def read_signed_value(data: bytes, trust: TrustPolicy) -> tuple[CurrentConstitution, ReleasePredicate]:
    """Return a Redis value, and what its statement says.

    Raises:
        UntrustedError: it has another shape, or no pinned service key signed its statement.
    """
    try:
        value = read_message(CurrentConstitution, data)
    except ValueError as error:
        raise UntrustedError("it cannot be read") from error
    return value, verify_release(value.statement, trust)


def signed_events(
    events: Iterable[Mapping[str, Any]], trust: TrustPolicy
) -> Iterator[tuple[Mapping[str, Any], UpdatedEvent, ReleasePredicate]]:
    """Yield the events (``adapters.event_log``) whose statement is signed and of their own generation, newest first.

    Each with its value and what its statement says; those of one generation keep their order. They are verified one by
    one: who wants the newest alone stops there.
    """
    for event in sorted(events, key=lambda event: -int(event["generation"])):
        try:
            value = read_message(UpdatedEvent, event["raw"].encode())
            release = verify_release(value.statement, trust)
        except (ValueError, UntrustedError):
            continue  # anyone who may write to the topic can put that there
        if release.generation == event["generation"]:
            yield event, value, release
