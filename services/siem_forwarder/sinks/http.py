"""Events as NDJSON in one POST. Acknowledged means: the answer was 2xx. Redirects are not followed."""

import json
from collections.abc import Sequence

import httpx

from services.siem_forwarder.sinks.sink import Event, SinkError

TIMEOUT = httpx.Timeout(15.0, connect=5.0)  # seconds


class HttpSink:
    """An HTTP endpoint of a SIEM.

    Args:
        url: takes ``application/x-ndjson``.
        token: sent as a bearer token; None sends none.
    """

    def __init__(self, url: str, *, token: str | None) -> None:
        self._url = url
        headers = {"Content-Type": "application/x-ndjson"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self._client = httpx.AsyncClient(headers=headers, timeout=TIMEOUT, follow_redirects=False, trust_env=False)

    async def deliver(self, events: Sequence[Event]) -> None:
        """Post all events in one request.

        Raises:
            SinkError: no answer, or one that is not 2xx.
        """
        body = "".join(json.dumps(event, separators=(",", ":")) + "\n" for event in events)
        try:
            response = await self._client.post(self._url, content=body.encode())
        except httpx.HTTPError as error:
            raise SinkError(f"{self._url}: {type(error).__name__}: {error}") from error
        if not response.is_success:
            raise SinkError(f"{self._url} answered {response.status_code}")

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()
