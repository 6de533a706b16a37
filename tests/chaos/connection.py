"""HTTP by the standard library: the gate has seconds, and a full client costs milliseconds of CPU a request."""

import http.client
from typing import NamedTuple
from urllib.parse import urlsplit

TIMEOUT = 10.0  # seconds of silence
FAILURES = (OSError, http.client.HTTPException)
"""What a call raises when no whole answer came."""


class Answer(NamedTuple):
    """Status and body."""

    status: int
    body: bytes


class Connection:
    """One kept-alive connection to a server; not to be shared by threads.

    Args:
        url: ``http://host:port``.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT)

    def call(self, path: str, body: bytes | None = None) -> Answer:
        """GET, or POST ``body`` as JSON.

        Raises:
            OSError, http.client.HTTPException: no whole answer came; the next call connects anew.
        """
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            self._connection.request("GET" if body is None else "POST", path, body, headers)
            response = self._connection.getresponse()
            return Answer(response.status, response.read())
        except FAILURES:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def call(url: str, path: str, body: bytes | None = None) -> Answer:
    """Call once, on a connection of its own."""
    connection = Connection(url)
    try:
        return connection.call(path, body)
    finally:
        connection.close()
