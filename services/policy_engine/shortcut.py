"""Answers a plain ``POST /v1/evaluate`` before the framework looks at it.

Plain: one request of at most 16 KiB of JSON, valid, not of the probe tenant, while something is obeyed. Everything else
goes on to the route, body and all, which is slower and says what is wrong. The checks are the same ones: a body is
bounded in size and time and strict JSON (services.common.limits), then request schema v1.
"""

import asyncio
import time
from collections.abc import Callable

from pydantic import ValidationError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from constitution.errors import InvalidRequestError, UnavailableError
from constitution.policy.consumer_api import PROBE_TENANT, EvaluationAnswer
from constitution.policy.evaluation import EvaluationRequest
from services.common.limits import BODY_TIMEOUT, SMALL, BodyTimeoutError
from services.common.metrics import HttpCounts
from services.common.problems import response_of
from services.common.strict_json import loads

PATH = "/v1/evaluate"
_JSON = (b"content-type", b"application/json")
_TIMEOUT_S = BODY_TIMEOUT.total_seconds()


class Shortcut:
    """ASGI middleware; see the module.

    Args:
        app: what answers everything else.
        counts: of requests.
        decide: about one request; counts and records it.
    """

    def __init__(
        self, app: ASGIApp, counts: HttpCounts, *, decide: Callable[[EvaluationRequest], EvaluationAnswer]
    ) -> None:
        self._app = app
        self._counts = counts
        self._decide = decide

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass the request on."""
        if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "POST" or not _is_small(scope):
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                first = await receive()
        except TimeoutError:
            late = BodyTimeoutError(f"the body did not arrive within {_TIMEOUT_S:.0f} s")
            await response_of(late)(scope, receive, send)
            self._counts.answered("POST", PATH, late.status, time.perf_counter() - began)
            return
        answer = None if first.get("more_body", False) else self._answer(first)
        if answer is None:
            await self._app(scope, _again(first, receive), send)
            return
        headers = ((b"content-length", str(len(answer)).encode()), _JSON)
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})
        self._counts.answered("POST", PATH, 200, time.perf_counter() - began)

    def _answer(self, message: Message) -> bytes | None:
        """Return the answer to a whole body; None if the route must say what is wrong with it."""
        try:
            request = EvaluationRequest.model_validate(loads(message.get("body", b"")))
            if request.tenant == PROBE_TENANT:  # needs a token
                return None
            return self._decide(request).model_dump_json().encode()
        except (InvalidRequestError, ValidationError, UnavailableError):
            return None


def _is_small(scope: Scope) -> bool:
    """Tell whether the headers announce a small JSON body."""
    is_json, size = False, SMALL + 1
    for name, value in scope["headers"]:
        if name == b"content-type":
            is_json = value == b"application/json"
        elif name == b"content-length":
            size = int(value) if value.isdigit() and len(value) < 10 else SMALL + 1
        elif name in {b"transfer-encoding", b"expect"}:
            return False
    return is_json and 0 < size <= SMALL


def _again(first: Message, receive: Receive) -> Receive:
    """Give a message once more, then what follows."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if not given:
            given = True
            return first
        return await receive()

    return replay
