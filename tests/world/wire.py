"""Stands between a process and its server, and is where the network's faults and attackers are made.

`Wire` is a real HTTP proxy in threads. It passes requests on, delays them, closes connections unanswered, or answers
itself with whatever somebody on the network could send (`Fault`). It holds one request that a test describes: before
it is sent on, or after the server has answered and before the answer comes back (`Hold`). A held request is how a test
stops a run at one exact point without a sleep. `RedisWire` does the same to one write of Redis.
"""

import contextlib
import http.client
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from tests.helpers import eventually

_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})
PATIENCE = timedelta(seconds=60)  # a held request is let go after this, so that no thread waits for ever
PIECE = 64 * 1024  # bytes; a Redis command's name and keys are in its first piece

Upstream = Callable[[], tuple[str, int]]
Answer = tuple[int, list[tuple[str, str]], bytes]


@dataclass(frozen=True)
class Fault:
    """What happens to each request while it lasts; by default nothing."""

    delay: float = 0.0  # seconds before anything is sent
    cut: bool = False  # the connection is closed without an answer
    status: int = 200
    body: bytes | None = None  # answered instead of the server's
    etag: str = ""  # of that body; a request that names it is answered 304
    age: str = ""  # header of both: how long ago the answer was known to be right
    trickle: bool = False  # half of the answer, then the connection is closed
    stuck: bool = False  # who asks whether anything is new, by an ETag, is told that nothing is


class Hold:
    """One request that is stopped on its way.

    Args:
        method: HTTP method.
        path: a part of its path.
        body: a part of its body.
        answered: stop the answer instead of the request: the server has done it, and nobody knows.
    """

    def __init__(self, method: str, path: str, body: bytes, *, answered: bool) -> None:
        self.method, self.path, self.body, self.answered = method, path, body, answered
        self._arrived = threading.Event()
        self._end = threading.Event()
        self._passed = threading.Event()
        self.is_dropped = False

    def takes(self, method: str, path: str, body: bytes) -> bool:
        return not self._arrived.is_set() and method == self.method and self.path in path and self.body in body

    def wait(self) -> bool:
        """Stop here until the test lets go; returns whether to go on."""
        self._arrived.set()
        self._end.wait(PATIENCE.total_seconds())
        return not self.is_dropped

    def done(self) -> None:
        self._passed.set()

    async def reached(self, deadline: timedelta = PATIENCE) -> None:
        """Wait until the request is here."""
        await eventually(self._arrived.is_set, deadline)

    def release(self) -> None:
        """Let it go its way."""
        self._end.set()

    def drop(self) -> None:
        """Close its connection without another word; said beforehand, as soon as it is here."""
        self.is_dropped = True
        self._end.set()

    async def over(self, deadline: timedelta = PATIENCE) -> None:
        """Wait until it has gone its way to the end."""
        await eventually(self._passed.is_set, deadline)


class Wire:
    """A proxy on a free loopback port.

    Args:
        upstream: the server's address, or what returns its (host, port) at each request: it may not run yet. Nobody
            is behind the wire without one.
    """

    def __init__(self, upstream: str | Upstream = "http://127.0.0.1:9") -> None:
        self.upstream = address_of(upstream) if isinstance(upstream, str) else upstream
        self.fault = Fault()
        self.met = 0  # requests that have met the present fault, or its absence
        self.requests: list[str] = []  # paths with their queries, in the order in which they came here
        self._holds: list[Hold] = []
        self._lock = threading.Lock()
        wire = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 120

            def do_GET(self) -> None:
                wire._answer(self)

            do_POST = do_DELETE = do_GET  # noqa: N815 - the base class's names

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                """Write no access log."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: object, client_address: object) -> None:
                """A client that went away is what this is for."""

        self._server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        """The proxy's own address."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def asked(self) -> "Counter[str]":
        """How often each path was asked for."""
        return Counter(path.partition("?")[0] for path in self.requests)

    def close(self) -> None:
        """Stop listening, and let go of everything."""
        self.repair()
        self._server.shutdown()
        self._server.server_close()

    def be(self, fault: Fault) -> None:
        """From now on every request meets this."""
        with self._lock:
            self.fault, self.met = fault, 0

    def cut(self) -> None:
        """From now on every request finds its connection closed."""
        self.be(Fault(cut=True))

    def repair(self) -> None:
        """Pass everything on again."""
        self.be(Fault())
        with self._lock:
            for hold in self._holds:
                hold.release()
            self._holds.clear()

    @contextmanager
    def during(self, fault: Fault) -> Iterator[None]:
        """Every request of the block meets this."""
        before = self.fault
        self.be(fault)
        try:
            yield
        finally:
            self.be(before)

    @contextmanager
    def holding(self, method: str, path: str, body: bytes = b"", *, answered: bool = False) -> Iterator[Hold]:
        """Hold the next request (or its answer) that looks like this."""
        with _kept(Hold(method, path, body, answered=answered), self._holds, self._lock) as hold:
            yield hold

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        try:
            body = handler.rfile.read(int(handler.headers.get("Content-Length", "0")))
            with self._lock:
                fault = self.fault
                self.met += 1
                self.requests.append(handler.path)
                hold = next((h for h in self._holds if h.takes(handler.command, handler.path, body)), None)
            if hold is not None and not hold.answered and not hold.wait():
                raise ConnectionAbortedError
            time.sleep(fault.delay)
            self._is_cut()
            answer = _forged(handler, fault) or self._ask(handler, body)
            if hold is not None and hold.answered and not hold.wait():
                raise ConnectionAbortedError
            if hold is not None:
                hold.done()
            self._is_cut()
            _send(handler, answer, trickle=fault.trickle)
        except OSError:  # either side went away, which is what faults are about
            handler.close_connection = True

    def _is_cut(self) -> None:
        if self.fault.cut:
            raise ConnectionAbortedError

    def _ask(self, handler: BaseHTTPRequestHandler, body: bytes) -> Answer:
        connection = http.client.HTTPConnection(*self.upstream(), timeout=60)
        try:
            headers = {name: value for name, value in handler.headers.items() if name.lower() not in _HOP}
            connection.request(handler.command, handler.path, body or None, headers)
            answer = connection.getresponse()
            kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOP]
            return answer.status, kept, answer.read()
        except http.client.HTTPException as error:
            raise OSError(str(error)) from error
        finally:
            connection.close()


def address_of(url: str) -> Upstream:
    """What `Wire` asks for where a server is, of one whose address is known."""
    parts = urlsplit(url)
    return lambda: (parts.hostname or "", parts.port or 80)


def _forged(handler: BaseHTTPRequestHandler, fault: Fault) -> Answer | None:
    if fault.stuck and "If-None-Match" in handler.headers:
        return 304, [("ETag", handler.headers["If-None-Match"])], b""
    if fault.body is None:
        return None
    named = (("ETag", fault.etag), ("Age", fault.age))
    headers = [("Content-Type", "application/json"), *((name, value) for name, value in named if value)]
    if fault.etag and handler.headers.get("If-None-Match") == fault.etag:
        return 304, headers, b""
    return fault.status, headers, fault.body


def _send(handler: BaseHTTPRequestHandler, answer: Answer, *, trickle: bool) -> None:
    status, headers, body = answer
    handler.send_response_only(status)
    for name, value in headers:
        handler.send_header(name, value)
    if status not in {204, 304}:
        handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2] if trickle else body)
    if trickle:
        raise ConnectionAbortedError


@contextmanager
def _kept(hold: Hold, holds: list[Hold], lock: threading.Lock) -> Iterator[Hold]:
    """Keep a hold among others until the block ends; then it is let go."""
    with lock:
        holds.append(hold)
    try:
        yield hold
    finally:
        hold.release()
        with lock:
            if hold in holds:
                holds.remove(hold)


class RedisWire:
    """A proxy of TCP on a free loopback port that can hold one script call back: it is delivered after its sender left.

    Nothing is changed and nothing is lost: what is held is delivered later, also when the client has long closed its
    end, as a router's queue would do.

    Args:
        upstream: address of Redis.
        key: name of a key; only a script that names it can be held.
    """

    def __init__(self, upstream: str, key: str) -> None:
        self._upstream = address_of(upstream)
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

    @contextmanager
    def holding(self) -> Iterator[Hold]:
        """Hold the next script call that names the key."""
        with _kept(Hold("EVALSHA", "", self._key, answered=False), self._holds, self._lock) as hold:
            yield hold

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
