"""Reads a request's body before any route does: bounded in size and time, and strict JSON where it is JSON.

Everything behind this middleware may assume a body that is complete, small and unambiguous.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from constitution.errors import InvalidRequestError
from services.common.problems import problem_response, response_of
from services.common.strict_json import loads

DEFAULT_LIMIT = 1_310_720  # bytes: a 1 MiB document's statement, approvals and signatures travel well inside it
BODY_TIMEOUT = timedelta(seconds=30)  # a body that trickles longer holds a connection for nothing
DRAIN_LIMIT = 16 * 1024 * 1024  # bytes read and dropped, so that a client sees the 413 and no broken pipe
_NOT_JSON = ("multipart/form-data", "application/octet-stream", "application/x-www-form-urlencoded")


class BodyTooLargeError(InvalidRequestError):
    """The body exceeds the route's limit."""

    code = "body-too-large"
    status = 413


class BodyTimeoutError(InvalidRequestError):
    """The body did not arrive in time."""

    code = "body-timeout"
    status = 408


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """Most bytes per body.

    Args:
        default: for every route not named.
        by_path: exact paths with a limit of their own; one above ``default`` is for files, never for JSON.
    """

    default: int = DEFAULT_LIMIT
    by_path: Mapping[str, int] = field(default_factory=dict)

    def of(self, path: str, media_type: str) -> int:
        """Return the limit of a path for a media type, in bytes."""
        limit = self.by_path.get(path, self.default)
        return limit if media_type in _NOT_JSON else min(limit, self.default)


class BodyGuard:
    """ASGI middleware; see the module."""

    def __init__(self, app: ASGIApp, limits: BodyLimits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its body already read, or answer with a problem."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        media_type = Headers(scope=scope).get("content-type", "").split(";")[0].strip().lower()
        limit = self._limits.of(scope["path"], media_type)
        try:
            async with asyncio.timeout(BODY_TIMEOUT.total_seconds()):
                body = await _read(receive, limit)
        except TimeoutError:
            late = BodyTimeoutError(f"the body did not arrive within {BODY_TIMEOUT.total_seconds():.0f} s")
            await response_of(late)(scope, receive, send)
            return
        if body is None:
            return  # the client went away
        if len(body) > limit:
            large = BodyTooLargeError(f"the body is larger than {limit} bytes")
            await response_of(large)(scope, receive, send)
            return
        if body and media_type not in _NOT_JSON:
            if media_type != "application/json" and not media_type.endswith("+json"):
                await problem_response(415, "unsupported-media-type", "send the body as application/json")(
                    scope, receive, send
                )
                return
            try:
                loads(body)
            except InvalidRequestError as error:
                await response_of(error)(scope, receive, send)
                return
        await self._app(scope, _replay(body, receive), send)


async def _read(receive: Receive, limit: int) -> bytes | None:
    chunks: list[bytes] = []
    size = kept = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if kept <= limit:
            chunks.append(chunk)
            kept = size
        if not message.get("more_body", False) or size > DRAIN_LIMIT:
            return b"".join(chunks)


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if not sent:
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return replay
