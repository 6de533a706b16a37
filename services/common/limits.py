"""Reads a request's body before any route does: bounded in size and time, and strict JSON where it is JSON.

Everything behind this middleware may assume a body that is complete, small and unambiguous. It works before any token
is checked, so it bounds the memory and computing time of anonymous callers: all their large bodies together, and never
on the event loop that answers everybody else.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import timedelta

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from constitution.errors import InvalidRequestError, UnavailableError
from services.common.problems import response_of
from services.common.strict_json import loads

DEFAULT_LIMIT = 1_310_720  # bytes: a 1 MiB document's statement, approvals and signatures travel well inside it
BODY_TIMEOUT = timedelta(seconds=30)  # a body that trickles longer holds a connection for nothing
DRAIN_LIMIT = 16 * 1024 * 1024  # bytes read and dropped, so that a client sees the 413 and no broken pipe
SMALL = 16 * 1024  # bytes: read on the event loop, and taken at any time; hostile JSON of this size costs 10 ms
HELD = 64 * 1024 * 1024  # bytes of bodies in memory at once; beyond it, large ones are taken with a token alone
READERS = 1  # of anonymous callers' large JSON at once, in a thread: a megabyte of small numbers takes most of a second
FORM, BYTES = "multipart/form-data", "application/octet-stream"


class BodyTooLargeError(InvalidRequestError):
    """The body exceeds the route's limit."""

    code = "body-too-large"
    status = 413


class UnsupportedMediaTypeError(InvalidRequestError):
    """The route takes no such body."""

    code = "unsupported-media-type"
    status = 415


class BodyTimeoutError(InvalidRequestError):
    """The body did not arrive in time."""

    code = "body-timeout"
    status = 408


class TooManyBodiesError(UnavailableError):
    """This process holds as many bytes of bodies as it may; small ones, and callers with a token, are still taken."""

    code = "too-many-bodies"


@dataclass(frozen=True, slots=True)
class Files:
    """What a route takes beside JSON: the one media type, and the most bytes of such a body."""

    media_type: str
    size: int


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """Most bytes per body, and the routes that take anything but JSON.

    Args:
        default: of JSON, for every route not named.
        by_path: of JSON, for exact paths.
        files: exact paths that take files.
        held: of all bodies together, from which on anonymous callers may send none above ``SMALL``.
    """

    default: int = DEFAULT_LIMIT
    by_path: Mapping[str, int] = field(default_factory=dict)
    files: Mapping[str, Files] = field(default_factory=dict)
    held: int = HELD

    def takes_file(self, path: str, media_type: str) -> bool:
        """Return whether a path takes this media type as it is, unread."""
        return path in self.files and self.files[path].media_type == media_type

    def of(self, path: str, media_type: str) -> int:
        """Return the limit of a path for a media type, in bytes."""
        if self.takes_file(path, media_type):
            return self.files[path].size
        return self.by_path.get(path, self.default)


class BodyGuard:
    """ASGI middleware; see the module."""

    def __init__(self, app: ASGIApp, limits: BodyLimits, known: Callable[[Scope], bool]) -> None:
        self._app = app
        self._limits = limits
        self._known = known
        self._held = 0
        self._anonymous = asyncio.Semaphore(READERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its body already read, or answer with a problem."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        kept = _Body()
        try:
            try:
                body = await self._taken(scope, receive, kept)
            except (InvalidRequestError, TooManyBodiesError) as error:
                await response_of(error)(scope, receive, send)
                return
            if body is not None:  # else the client went away
                await self._app(scope, _replay(body, receive), send)
        finally:
            self._held -= kept.kept

    async def _taken(self, scope: Scope, receive: Receive, kept: "_Body") -> bytes | None:
        """Return the body of a request, or None if its client went away.

        Raises:
            InvalidRequestError, TooManyBodiesError: it is not taken.
        """
        media_type, charset = _content_type(scope)
        limit = self._limits.of(scope["path"], media_type)
        try:
            async with asyncio.timeout(BODY_TIMEOUT.total_seconds()):
                body = await self._read(scope, receive, limit, kept)
        except TimeoutError:
            raise BodyTimeoutError(f"the body did not arrive within {BODY_TIMEOUT.total_seconds():.0f} s") from None
        if not body:
            return body
        if len(body) > limit:
            raise BodyTooLargeError(f"the body is larger than {limit} bytes")
        if charset not in {"", "utf-8", "utf8"}:  # some of Python's codecs raise what no parser expects
            raise UnsupportedMediaTypeError("send the body as UTF-8")
        if not self._limits.takes_file(scope["path"], media_type):
            if media_type != "application/json" and not media_type.endswith("+json"):
                raise UnsupportedMediaTypeError("send the body as application/json")
            await self._look(scope, body)
        return body

    async def _look(self, scope: Scope, body: bytes) -> None:
        if len(body) <= SMALL:
            loads(body)
            return
        async with nullcontext() if self._known(scope) else self._anonymous:
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


def _content_type(scope: Scope) -> tuple[str, str]:
    """Return the media type and the character set of a request; empty where it says none."""
    media_type, *parameters = Headers(scope=scope).get("content-type", "").split(";")
    named = (parameter.partition("=") for parameter in parameters)
    charset = next((value for name, _, value in named if name.strip().lower() == "charset"), "")
    return media_type.strip().lower(), charset.strip().strip('"').lower()


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
