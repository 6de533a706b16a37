"""A real HTTP server that is not ours: it answers ``GET /v1/constitution`` with whatever lies in a file.

The tests use it as the attacker on the wire, and as a service whose answers the test has signed.

    python tests/answer_server.py PORT DIRECTORY

``DIRECTORY/answer`` holds a line with the status, a line with the ETag (or nothing), and the body. Each path that is
asked for is appended to ``DIRECTORY/requests``.
"""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

DIRECTORY = Path(sys.argv[2])


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        with (DIRECTORY / "requests").open("a") as log:
            log.write(self.path + "\n")
        status, etag, body = (DIRECTORY / "answer").read_bytes().split(b"\n", 2)
        if etag and self.headers.get("If-None-Match") == etag.decode():
            status, body = b"304", b""
        self.send_response(int(status))
        if etag:
            self.send_header("ETag", etag.decode())
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        pass


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
