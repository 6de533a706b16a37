"""Answers ``GET`` and ``HEAD /v1/constitution`` from memory before anything else looks at the request.

Only the plain question with a fresh answer: a ring, a ``min_generation`` that memory has, an ETag. Everything else
(parameters that are to be refused, a body, ``no-cache``, an answer that is not fresh or large) goes on to the route,
which is slower and complete. Both give the same bytes.
"""

import re
import time
from functools import lru_cache

from prometheus_client import Counter
from starlette.types import ASGIApp, Receive, Scope, Send

from constitution.names import DEFAULT_RING
from services.common.answers import PIECE
from services.common.metrics import HttpCounts
from services.constitution_service.serving.answer import Answer
from services.constitution_service.serving.memory import Memory

PATH = "/v1/constitution"
_METHODS = frozenset({"GET", "HEAD"})
_QUERY = re.compile(rb"(?:ring=([a-z0-9][a-z0-9._-]{0,62}))?(?:(?:^|&)min_generation=(\d{1,15}))?")
_ELSEWHERE = frozenset({b"cache-control", b"content-length", b"transfer-encoding", b"expect", b"upgrade"})


class Shortcut:
    """ASGI middleware; see the module.

    Args:
        app: what answers everything else.
        counts: of requests.
        memory: of the process.
        reads: counts answers, by what gave them.
    """

    def __init__(self, app: ASGIApp, counts: HttpCounts, *, memory: Memory, reads: Counter) -> None:
        self._app = app
        self._counts = counts
        self._memory = memory
        self._count = reads.labels("memory").inc

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass the request on."""
        if scope["type"] == "http" and scope["path"] == PATH and scope["method"] in _METHODS:
            began = time.perf_counter()
            found = self._found(scope)
            if found is not None:
                answer, same = found
                start, body = answer.same if same else answer.whole
                await send(start)
                await send(body)  # the server leaves it out of the answer to a HEAD
                self._count()
                self._counts.answered("GET", PATH, start["status"], time.perf_counter() - began)
                return
        await self._app(scope, receive, send)

    def _found(self, scope: Scope) -> tuple[Answer, bool] | None:
        """Return the answer, and whether the caller has it already; None if the route must decide."""
        wanted = _wanted(scope["query_string"])
        if wanted is None:
            return None
        ring, min_generation = wanted
        answer = self._memory.fresh(ring)
        if answer is None or answer.pointer.generation < min_generation or len(answer.body) > PIECE:
            return None
        etag: bytes | None = None
        for name, value in scope["headers"]:
            if name == b"if-none-match" and etag is None:
                etag = value
            elif name in _ELSEWHERE or name == b"if-none-match":
                return None
        if etag is None or etag == answer.etag:
            return answer, etag is not None
        return None if b"," in etag or b"*" in etag or b"W/" in etag else (answer, False)


@lru_cache(maxsize=256)
def _wanted(query: bytes) -> tuple[str, int] | None:
    """Read a query as our own clients write it: the ring and ``min_generation``; None for every other one."""
    if len(query) > 128:
        return None
    found = _QUERY.fullmatch(query)
    if found is None:
        return None
    ring, generation = found.groups()
    return DEFAULT_RING if ring is None else ring.decode(), int(generation or 0)
