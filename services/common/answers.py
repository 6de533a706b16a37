"""Bounds the memory of answers: a caller that asks for much and reads nothing holds one piece, never the whole.

uvicorn queues all bytes that it gets for a connection. This middleware gives it a large body in pieces, each after the
connection has taken the one before, and bounds the bytes of all large bodies together: beyond it, the answer is 503.
services.common.deadlines limits how long a piece may wait.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from constitution.errors import UnavailableError
from services.common.problems import response_of

PIECE = 64 * 1024  # bytes given to the connection at once; a body up to it counts as small, and is always given
HELD = 128 * 1024 * 1024  # bytes of large bodies at once: four of the largest blobs, a hundred of the largest documents


class TooManyAnswersError(UnavailableError):
    """This process holds as many bytes of answers as it may; small ones are still given."""

    code = "too-many-answers"


class AnswerGuard:
    """ASGI middleware; see the module."""

    def __init__(self, app: ASGIApp, held: int = HELD) -> None:
        self._app = app
        self._most = held
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and its answer back in pieces."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start: Message | None = None
        refused = False

        async def paced(message: Message) -> None:
            nonlocal start, refused
            if message["type"] == "http.response.start":
                start = message
                return
            body: bytes = message.get("body", b"")
            if refused:
                return
            if len(body) > PIECE and self._held + len(body) > self._most and start is not None:
                refused = True
                busy = TooManyAnswersError("too many large answers are waiting to be taken", hint="try again")
                await response_of(busy)(scope, receive, send)
                return
            if start is not None:
                await send(start)
                start = None
            if len(body) <= PIECE:
                await send(message)
                return
            self._held += len(body)
            try:
                for at in range(0, len(body), PIECE):
                    last = at + PIECE >= len(body)
                    more = message.get("more_body", False) if last else True
                    await send({**message, "body": body[at : at + PIECE], "more_body": more})
            finally:
                self._held -= len(body)

        await self._app(scope, receive, paced)
