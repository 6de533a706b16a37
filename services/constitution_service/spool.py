"""Audit events that could not reach PostgreSQL wait here (invariant 7), a file each, with fsync, in order of time.

Bounded: beyond ``capacity`` files an event is refused, counted and logged, because a full disk would take the service
with it. Several processes may share the directory: taking an event twice is harmless, its id makes it one row.
"""

import contextlib
import os
import secrets
import time
from pathlib import Path

from constitution.errors import InvalidRequestError
from signatures.regular_file import read_regular

MAX_EVENT = 1024 * 1024  # bytes; an event's body is at most 64 kB
CAPACITY = 10_000  # files of at most about 100 kB: under 1 GB


class Spool:
    """A directory of waiting events.

    Args:
        directory: made, mode 0700, if missing.
        capacity: most events that may wait.
    """

    def __init__(self, directory: Path, capacity: int = CAPACITY) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._directory = directory
        self._capacity = capacity

    def put(self, event: str) -> bool:
        """Write one event durably; False when the spool is full.

        Raises:
            OSError: the disk refused.
        """
        if len(self) >= self._capacity:
            return False
        name = f"{time.time_ns():020d}-{secrets.token_hex(6)}"
        partial = self._directory / f"{name}.partial"
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(event)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(self._directory / f"{name}.json")
        self._sync_directory()
        return True

    def waiting(self, limit: int = 100) -> list[Path]:
        """Return the oldest events, oldest first."""
        return sorted(self._directory.glob("*.json"))[:limit]

    def read(self, path: Path) -> str | None:
        """Return an event's text, or None if another process took it, or what lies there is no regular file."""
        try:
            return read_regular(path, MAX_EVENT).decode("utf-8", "replace")
        except InvalidRequestError:
            return None

    def taken(self, path: Path) -> None:
        """Forget an event that is in PostgreSQL now."""
        path.unlink(missing_ok=True)

    def __len__(self) -> int:
        return sum(1 for _ in self._directory.glob("*.json"))

    def _sync_directory(self) -> None:
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with contextlib.suppress(OSError):  # some file systems cannot sync a directory
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
