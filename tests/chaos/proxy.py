"""Stands between engine and constitution-service, and is where the network's faults are made.

A real HTTP server in a thread: it passes requests on, delays them, cuts them off, or answers itself with whatever an
attacker who sits there could send. It counts what it did, so that a test waits for the fault to have happened.
"""

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})


@dataclass(frozen=True)
class Fault:
    """What happens to each request while it lasts; by default nothing."""

    delay: float = 0.0  # seconds before anything is sent
    cut: bool = False  # the connection is closed without an answer
    status: int = 200
    body: bytes | None = None  # answered instead of the service's
    trickle: bool = False  # half of the answer, then the connection is closed


class Proxy:
    """A proxy on a free loopback port in front of ``upstream`` (host and port)."""

    def __init__(self, upstream: tuple[str, int]) -> None:
        self.upstream = upstream
        self.fault = Fault()
        self.met = 0
        """How many requests have met the present fault."""
        self._lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30

            def do_GET(self) -> None:
                proxy._answer(self)

            def do_POST(self) -> None:
                proxy._answer(self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                """Write no access log."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        """The proxy's own address."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    @contextmanager
    def during(self, fault: Fault) -> Iterator[None]:
        """Let every request meet ``fault`` until the block ends."""
        with self._lock:
            self.fault, self.met = fault, 0
        try:
            yield
        finally:
            with self._lock:
                self.fault, self.met = Fault(), 0

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        fault = self.fault
        try:
            time.sleep(fault.delay)
            if fault.cut:
                handler.close_connection = True
            elif fault.body is not None:
                self._send(handler, fault.status, [("Content-Type", "application/json")], fault.body, fault)
            else:
                self._pass_on(handler, fault)
        except OSError:  # either side went away, which is what faults are about
            handler.close_connection = True
        with self._lock:
            if fault is self.fault:
                self.met += 1

    def _pass_on(self, handler: BaseHTTPRequestHandler, fault: Fault) -> None:
        connection = http.client.HTTPConnection(*self.upstream, timeout=30)
        try:
            body = handler.rfile.read(int(handler.headers.get("Content-Length", "0")))
            headers = {name: value for name, value in handler.headers.items() if name.lower() not in _HOP}
            connection.request(handler.command, handler.path, body or None, headers)
            answer = connection.getresponse()
            kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOP]
            self._send(handler, answer.status, kept, answer.read(), fault)
        except http.client.HTTPException as error:
            raise OSError(str(error)) from error
        finally:
            connection.close()

    @staticmethod
    def _send(
        handler: BaseHTTPRequestHandler, status: int, headers: list[tuple[str, str]], body: bytes, fault: Fault
    ) -> None:
        handler.send_response_only(status)
        for name, value in headers:
            handler.send_header(name, value)
        if status not in {204, 304}:
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: len(body) // 2] if fault.trickle else body)
        handler.close_connection = handler.close_connection or fault.trickle
