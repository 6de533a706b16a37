"""Stands between a process and an HTTP server, and is where the network's faults are made.

A real HTTP proxy in threads. It passes requests on, closes connections unanswered (`cut`), or holds one request that
a test describes: before it is sent on, or after the server has answered and before the answer comes back. A held
request is how a test stops a run at one exact point without a sleep.
"""

import http.client
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.helpers import eventually

_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})
PATIENCE = timedelta(seconds=60)  # a held request is let go after this, so that no thread waits for ever


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
        """Close its connection without another word."""
        self.is_dropped = True
        self._end.set()

    async def over(self) -> None:
        """Wait until it has gone its way to the end."""
        await eventually(self._passed.is_set, PATIENCE)


class Wire:
    """A proxy on a free loopback port.

    Args:
        upstream: returns the server's (host, port); asked at each request, because it may not run yet.
    """

    def __init__(self, upstream: Callable[[], tuple[str, int]]) -> None:
        self.upstream = upstream
        self.is_cut = False
        self.asked: Counter[str] = Counter()  # requests that came here, by path
        self._holds: list[Hold] = []
        self._lock = threading.Lock()
        wire = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 120

            def do_GET(self) -> None:
                wire._answer(self)

            def do_POST(self) -> None:
                wire._answer(self)

            def do_DELETE(self) -> None:
                wire._answer(self)

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

    def close(self) -> None:
        """Stop listening, and let go of everything."""
        self.mend()
        self._server.shutdown()
        self._server.server_close()

    def cut(self) -> None:
        """From now on every request finds its connection closed."""
        self.is_cut = True

    def mend(self) -> None:
        """Pass everything on again."""
        self.is_cut = False
        with self._lock:
            for hold in self._holds:
                hold.release()
            self._holds.clear()

    @contextmanager
    def holding(self, method: str, path: str, body: bytes = b"", *, answered: bool = False) -> Iterator[Hold]:
        """Hold the next request (or its answer) that looks like this."""
        hold = Hold(method, path, body, answered=answered)
        with self._lock:
            self._holds.append(hold)
        try:
            yield hold
        finally:
            hold.release()
            with self._lock:
                if hold in self._holds:
                    self._holds.remove(hold)

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        try:
            body = handler.rfile.read(int(handler.headers.get("Content-Length", "0")))
            hold = self._held(handler.command, handler.path, body)
            if hold is not None and not hold.answered and not hold.wait():
                raise ConnectionAbortedError
            if self.is_cut:
                raise ConnectionAbortedError
            status, headers, answer = self._ask(handler, body)
            if hold is not None and hold.answered and not hold.wait():
                raise ConnectionAbortedError
            if hold is not None:
                hold.done()
            if self.is_cut:
                raise ConnectionAbortedError
            _send(handler, status, headers, answer)
        except OSError:  # either side went away, which is what faults are about
            handler.close_connection = True

    def _held(self, method: str, path: str, body: bytes) -> Hold | None:
        with self._lock:
            self.asked[path.partition("?")[0]] += 1
            return next((hold for hold in self._holds if hold.takes(method, path, body)), None)

    def _ask(self, handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
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


def _send(handler: BaseHTTPRequestHandler, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
    handler.send_response_only(status)
    for name, value in headers:
        handler.send_header(name, value)
    if status not in {204, 304}:
        handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
