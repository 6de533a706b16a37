"""Reads a request's body before any route does: bounded in size and time, and strict JSON where it is JSON.

Everything behind this middleware may assume a body that is complete, small and unambiguous. It works before anybody's
token was looked at, so what a stranger can make it hold and compute is bounded here: all large bodies of strangers
together, and never the event loop that answers everybody else.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import timedelta

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from constitution.errors import InvalidRequestError, UnavailableError
from services.common.problems import problem_response, response_of
from services.common.strict_json import loads

DEFAULT_LIMIT = 1_310_720  # bytes: a 1 MiB document's statement, approvals and signatures travel well inside it
BODY_TIMEOUT = timedelta(seconds=30)  # a body that trickles longer holds a connection for nothing
DRAIN_LIMIT = 16 * 1024 * 1024  # bytes read and dropped, so that a client sees the 413 and no broken pipe
SMALL = 16 * 1024  # bytes: read on the event loop, and taken at any time; hostile JSON of this size costs 10 ms
HELD = 64 * 1024 * 1024  # bytes of bodies in memory at once; beyond it, large ones are taken with a token alone
READERS = 1  # of strangers' large JSON at once, in a thread: a megabyte of small numbers takes most of a second
_NOT_JSON = ("multipart/form-data", "application/octet-stream", "application/x-www-form-urlencoded")


class BodyTooLargeError(InvalidRequestError):
    """The body exceeds the route's limit."""

    code = "body-too-large"
    status = 413


class BodyTimeoutError(InvalidRequestError):
    """The body did not arrive in time."""

    code = "body-timeout"
    status = 408


class TooManyBodiesError(UnavailableError):
    """This process holds as many bytes of bodies as it may; small ones, and callers with a token, are still taken."""

    code = "too-many-bodies"


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """Most bytes per body.

    Args:
        default: for every route not named.
        by_path: exact paths with a limit of their own; one above ``default`` is for files, never for JSON.
        held: of all bodies together, from which on strangers may send none above ``SMALL``.
    """

    default: int = DEFAULT_LIMIT
    by_path: Mapping[str, int] = field(default_factory=dict)
    held: int = HELD

    def of(self, path: str, media_type: str) -> int:
        """Return the limit of a path for a media type, in bytes."""
        limit = self.by_path.get(path, self.default)
        return limit if media_type in _NOT_JSON else min(limit, self.default)


class BodyGuard:
    """ASGI middleware; see the module."""

    def __init__(self, app: ASGIApp, limits: BodyLimits, known: Callable[[Scope], bool]) -> None:
        self._app = app
        self._limits = limits
        self._known = known
        self._held = 0
        self._strangers = asyncio.Semaphore(READERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its body already read, or answer with a problem."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body()
        try:
            await self._guarded(scope, receive, send, body)
        finally:
            self._held -= body.kept

    async def _guarded(self, scope: Scope, receive: Receive, send: Send, held: "_Body") -> None:
        media_type = Headers(scope=scope).get("content-type", "").split(";")[0].strip().lower()
        limit = self._limits.of(scope["path"], media_type)
        try:
            async with asyncio.timeout(BODY_TIMEOUT.total_seconds()):
                body = await self._read(scope, receive, limit, held)
        except TooManyBodiesError as error:
            await response_of(error)(scope, receive, send)
            return
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
                await self._look(scope, body)
            except InvalidRequestError as error:
                await response_of(error)(scope, receive, send)
                return
        await self._app(scope, _replay(body, receive), send)

    async def _look(self, scope: Scope, body: bytes) -> None:
        if len(body) <= SMALL:
            loads(body)
            return
        async with nullcontext() if self._known(scope) else self._strangers:
            await asyncio.to_thread(loads, body)

    async def _read(self, scope: Scope, receive: Receive, limit: int, body: "_Body") -> bytes | None:
        chunks: list[bytes] = []
        size = 0
        known = False
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return None
            chunk: bytes = message.get("body", b"")
            size += len(chunk)
            if body.kept <= limit:
                chunks.append(chunk)
                body.kept += len(chunk)
                self._held += len(chunk)
            if not message.get("more_body", False) or size > max(limit, DRAIN_LIMIT):
                return b"".join(chunks)
            if self._held > self._limits.held and body.kept > SMALL and not known:
                known = self._known(scope)
                if not known:
                    raise TooManyBodiesError(
                        "too many large bodies are being received", hint="try again, or send a token with the call"
                    )


@dataclass(slots=True)
class _Body:
    """How many bytes of a request's body are kept."""

    kept: int = 0


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if not sent:
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return replay
