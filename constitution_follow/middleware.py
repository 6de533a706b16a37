"""ASGI middleware that lets through what the constitution allows: for Starlette, FastAPI, Litestar, Quart, Django."""

from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any, Protocol

from constitution.api import Problem
from constitution.errors import UnavailableError
from constitution.policy.consumer_api import EvaluationAnswer
from constitution.policy.evaluation import Decision, EvaluationRequest

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
POLICY_VIOLATION = 1008  # RFC 6455 §7.4.1


class Policy(Protocol):
    """What decides: a Follower."""

    def evaluate(self, request: EvaluationRequest) -> EvaluationAnswer:
        """Decide about a request."""
        ...


class ConstitutionMiddleware:
    """Asks about each HTTP request and WebSocket; what is not allowed gets 403, or 1008.

    A request that is let through finds the decision in ``scope["constitution"]``. While nothing is obeyed yet, 503.

    Args:
        app: what answers requests that are allowed.
        policy: a Follower, entered before the first request.
        request_of: says what a scope asks about; None: nothing that rules are about, it is let through.
    """

    def __init__(self, app: App, *, policy: Policy, request_of: Callable[[Scope], EvaluationRequest | None]) -> None:
        self._app = app
        self._policy = policy
        self._request_of = request_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Decide, and pass on or refuse."""
        request = self._request_of(scope) if scope["type"] in {"http", "websocket"} else None
        if request is None:
            await self._app(scope, receive, send)
            return
        try:
            answer = self._policy.evaluate(request)
        except UnavailableError as error:
            await _refuse(scope, send, _problem(503, "unavailable", error.message), (b"retry-after", b"1"))
            return
        if answer.decision is Decision.ALLOW:
            scope["constitution"] = answer
            await self._app(scope, receive, send)
            return
        detail = f"{answer.message or 'the constitution does not allow it'} ({answer.rule or answer.reason})"
        problem = _problem(403, answer.decision.value.replace("_", "-"), detail)
        await _refuse(scope, send, problem, (b"constitution-generation", str(answer.generation).encode()))


def _problem(status: int, code: str, detail: str) -> Problem:
    return Problem(
        type=f"urn:somaagenthub:problem:{code}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=code,
    )


async def _refuse(scope: Scope, send: Send, problem: Problem, header: tuple[bytes, bytes]) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": problem.code})
        return
    body = problem.model_dump_json(exclude_none=True).encode()
    of_body = [(b"content-type", b"application/problem+json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": problem.status, "headers": [*of_body, header]})
    await send({"type": "http.response.body", "body": body})
