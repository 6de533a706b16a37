"""The outside of reconciliation beyond ``activities.ports``: searching, listing, deleting."""
# ruff: noqa: D102 - what needs no word here is documented where it is implemented

from collections.abc import Collection
from datetime import datetime
from typing import Any, Protocol


class RunSearch(Protocol):
    """Finds this environment's runs (``adapters.runs.TemporalSearch``); each as ``activities.ports.Runs.describe``."""

    async def carrying(self, update_id: str) -> list[dict[str, Any]]: ...
    async def without_outcome(self, since: datetime) -> list[dict[str, Any]]: ...
    async def in_phase(self, *phases: str) -> list[dict[str, Any]]: ...
    async def stalled(self) -> list[dict[str, Any]]: ...
    async def paused(self) -> list[dict[str, Any]]: ...
    async def results(self, workflow_id: str, run_id: str, activities: Collection[str]) -> list[bytes]: ...


class Topic(Protocol):
    """Independent read-back from Kafka."""

    async def find_newer(self, generation: int, since: datetime) -> list[dict[str, Any]]:
        """Return the records of generations above ``generation``, as ``activities.ports.EventLog.find_events``."""
        ...


class Repository(Protocol):
    """The legal archive, to be read."""

    async def read(self, path: str) -> bytes | None: ...
    async def paths(self, folder: str) -> frozenset[str]:
        """Return the path of every file below a folder at HEAD."""
        ...


class Announcements(Protocol):
    """The announcements in the channel."""

    async def announced(self, channel: str, since: datetime) -> list[tuple[str, str, str]]:
        """Return (key, channel id, ts) of our messages."""
        ...

    async def delete(self, channel_id: str, ts: str) -> None: ...
