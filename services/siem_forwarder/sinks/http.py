"""Events as NDJSON in POSTs. Acknowledged means: every answer was 2xx. Redirects are not followed.

A receiver that says 413 is asked for less: the batch is halved until it fits, and what fitted is remembered. One event
that is too large alone is replaced by a finding that names it (``quarantine.too_large``); the event stays on its topic.
"""

import json
from collections.abc import Sequence
from http import HTTPStatus

import httpx

from constitution.addresses import host_of
from constitution_follow.outgoing import http_client
from services.siem_forwarder.quarantine import too_large
from services.siem_forwarder.sinks.sink import Event, SinkError

TIMEOUT = httpx.Timeout(15.0, connect=5.0)  # seconds
MOST_BYTES = 1024 * 1024  # of one body; nginx, in front of many receivers, takes so much unless it is told otherwise


class HttpSink:
    """An HTTP endpoint of a SIEM.

    Args:
        url: takes ``application/x-ndjson``.
        token: sent as a bearer token; None sends none.
    """

    def __init__(self, url: str, *, token: str | None) -> None:
        self._url = url
        self._most = MOST_BYTES
        headers = {"Content-Type": "application/x-ndjson"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self._client = http_client(headers=headers, timeout=TIMEOUT)

    async def deliver(self, events: Sequence[Event]) -> Sequence[Event]:
        """Post all events, in order; return those that were too large and were replaced by findings about them.

        Raises:
            SinkError: no answer, or one that is neither 2xx nor 413; or even a finding is too large.
        """
        lines = [(json.dumps(event, separators=(",", ":")) + "\n").encode() for event in events]
        replaced: list[Event] = []
        start = 0
        while start < len(lines):
            end = self._end(lines, start)
            body = b"".join(lines[start:end])
            if await self._post(body):
                start = end
            elif end - start > 1:
                self._most = len(body) // 2
            else:
                finding = too_large(events[start], size=len(body))
                if not await self._post((json.dumps(finding, separators=(",", ":")) + "\n").encode()):
                    raise SinkError(f"{host_of(self._url)} answered 413 to one small event: no size is taken")
                replaced.append(events[start])
                start = end
        return replaced

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _end(self, lines: Sequence[bytes], start: int) -> int:
        """Return the end of the next body: as many events as fit, and at least one."""
        size, end = len(lines[start]), start + 1
        while end < len(lines) and size + len(lines[end]) <= self._most:
            size += len(lines[end])
            end += 1
        return end

    async def _post(self, body: bytes) -> bool:
        """Return whether the body was taken; False: it is too large."""
        try:
            # The answer's status alone counts; its body is not read, however long it is.
            async with self._client.stream("POST", self._url, content=body) as response:
                status = response.status_code
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise SinkError(f"{host_of(self._url)}: {type(error).__name__}: {error}") from error
        if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return False
        if not 200 <= status < 300:
            raise SinkError(f"{host_of(self._url)} answered {status}")
        return True
