"""One JSON object a line, appended to a file. Acknowledged means: ``fsync`` has returned.

A torn last line (power cut in mid-write) was never acknowledged: it is cut off, and its event comes again. The file may
be renamed by log rotation at any moment: it is opened anew for each batch.
"""

import asyncio
import fcntl
import json
import os
from collections.abc import Sequence
from pathlib import Path

from services.siem_forwarder.sinks.sink import Event, SinkError

_TAIL = 65536


class NdjsonSink:
    """A file of events, mode 0600 when it is made here.

    Args:
        path: its folder must exist or be creatable.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    async def deliver(self, events: Sequence[Event]) -> Sequence[Event]:
        """Append all events and force them to the disk.

        Raises:
            SinkError: the file cannot be written, or the disk is full.
        """
        lines = "".join(json.dumps(event, separators=(",", ":"), ensure_ascii=False) + "\n" for event in events)
        try:
            await asyncio.to_thread(self._append, lines.encode())
        except OSError as error:
            raise SinkError(f"{self._path}: {error.strerror or error}") from error
        return ()

    async def close(self) -> None:
        """Nothing is held between batches."""

    def _append(self, data: bytes) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        made = not self._path.exists()
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # a second forwarder on the same file would tear lines
            _cut_torn_line(descriptor)
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if made:
            _sync_folder(self._path.parent)


def _cut_torn_line(descriptor: int) -> None:
    size = os.fstat(descriptor).st_size
    end = size
    while end:
        start = max(0, end - _TAIL)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        os.ftruncate(descriptor, end)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
