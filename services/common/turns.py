"""Callers without a token share a number of places: so many of their requests are worked on at once, the others wait.

A service lends its few connections and threads in order of asking. Without this limit, one caller with hundreds of
reads under way delays every holder of a token, and the next release, until all of them are done.
"""

import asyncio
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_OPERATIONS = frozenset({"/healthz", "/readyz", "/metrics"})  # asked by probes, which must see a busy service too


class AnonymousTurns:
    """ASGI middleware; see the module. A place is held until the answer begins: a slow reader holds none."""

    def __init__(self, app: ASGIApp, known: Callable[[Scope], bool], at_once: int) -> None:
        self._app = app
        self._known = known
        self._places = asyncio.Semaphore(at_once)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on when it has a place."""
        if scope["type"] != "http" or scope["path"] in _OPERATIONS or self._known(scope):
            await self._app(scope, receive, send)
            return
        await self._places.acquire()
        held = True

        def give_back() -> None:
            nonlocal held
            if held:
                held = False
                self._places.release()

        async def answered(message: Message) -> None:
            give_back()
            await send(message)

        try:
            await self._app(scope, receive, answered)
        finally:
            give_back()
