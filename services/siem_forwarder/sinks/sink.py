"""What every sink promises."""

from collections.abc import Sequence
from typing import Any, Protocol

from constitution.errors import UnavailableError

Event = dict[str, Any]
"""One OCSF event."""


class SinkError(UnavailableError):
    """The sink did not acknowledge. Some of the batch may have arrived: it is sent again, with the same uids."""

    code = "sink-unavailable"


class Sink(Protocol):
    """Takes events in batches."""

    async def deliver(self, events: Sequence[Event]) -> Sequence[Event]:
        """Hand over all events, in order; return only when the sink has acknowledged all of them.

        Returned are the events that the receiver takes in no size, and of which it took a finding that names them.

        Raises:
            SinkError: it did not; call again with the same events.
        """

    async def close(self) -> None:
        """Free what the sink holds."""
