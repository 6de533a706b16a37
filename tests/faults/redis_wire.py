"""Stands between toxiproxy and Redis, and can hold back one write: the network delivers it after its sender has gone.

A real TCP proxy in threads. Nothing is changed and nothing is lost: what is held is delivered later, also when the
client has long closed its end, as a router's queue would do.
"""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

from tests.workflow.wire import Hold

PIECE = 64 * 1024  # bytes; a command's name and keys are in its first piece


class RedisWire:
    """A proxy on a free loopback port.

    Args:
        upstream: returns the (host, port) of Redis.
        key: name of a key; only a script that names it can be held.
    """

    def __init__(self, upstream: Callable[[], tuple[str, int]], key: str) -> None:
        self._upstream = upstream
        self._key = key.encode()
        self._holds: list[Hold] = []
        self._lock = threading.Lock()
        self._server = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.getsockname()[1])

    def close(self) -> None:
        """Stop listening, and let go of what is held."""
        with self._lock:
            for hold in self._holds:
                hold.release()
        with contextlib.suppress(OSError):  # wakes the thread that accepts
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    @contextlib.contextmanager
    def holding(self) -> Iterator[Hold]:
        """Hold the next script call that names the key."""
        hold = Hold("EVALSHA", "", self._key, answered=False)
        with self._lock:
            self._holds.append(hold)
        try:
            yield hold
        finally:
            hold.release()
            with self._lock:
                self._holds.remove(hold)

    def _listen(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return  # closed
            try:
                server = socket.create_connection(self._upstream(), timeout=5)
            except OSError:
                client.close()  # Redis is down: so is the way to it
                continue
            server.settimeout(None)
            passed: list[Hold] = []
            threading.Thread(target=self._there, args=(client, server, passed), daemon=True).start()
            threading.Thread(target=_back, args=(client, server, passed), daemon=True).start()

    def _there(self, client: socket.socket, server: socket.socket, passed: list[Hold]) -> None:
        with contextlib.suppress(OSError):  # either end is gone, which is what faults are about
            while piece := client.recv(PIECE):
                hold = self._held(piece)
                if hold is not None:
                    hold.wait()
                    passed.append(hold)
                server.sendall(piece)
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_WR)

    def _held(self, piece: bytes) -> Hold | None:
        if b"EVALSHA" not in piece[:64]:
            return None
        with self._lock:
            return next((hold for hold in self._holds if hold.takes("EVALSHA", "", piece)), None)


def _back(client: socket.socket, server: socket.socket, passed: list[Hold]) -> None:
    """Bring answers back; an answer, or the end, after a held piece was delivered means that Redis has done it."""
    is_there = True
    with contextlib.suppress(OSError):
        while piece := server.recv(PIECE):
            for hold in passed:
                hold.done()
            if is_there:
                try:
                    client.sendall(piece)
                except OSError:
                    is_there = False  # the answer finds nobody
    for hold in passed:
        hold.done()
    for end in (client, server):
        end.close()
