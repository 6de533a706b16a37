"""Every error as RFC 9457 ``application/problem+json``; ``type`` is ``urn:somaagenthub:problem:<code>``.

Bad input is 4xx and names every problem; an outage of something behind us is 503 with ``Retry-After`` (RFC 9110
§10.2.3); only a defect of ours is 500. Values that were sent are never repeated in an answer.
"""

import http
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from constitution.api import Problem
from constitution.errors import MAX_ISSUES, ConstitutionError, ContentError, Issue, UnavailableError, listed

PROBLEM_MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 1
MUTATING = frozenset({"POST", "PUT", "PATCH", "DELETE"})

RefusalHook = Callable[[Request, ConstitutionError], Awaitable[None]]
"""Called for every refused mutating call; a service that audits sets ``app.state.on_refused``."""

_log = structlog.get_logger(__name__)


def problem_response(
    status: int,
    code: str,
    detail: str,
    *,
    issues: Sequence[Issue] = (),
    hint: str = "",
    current: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return one problem as a response."""
    problem = Problem(
        type=f"urn:somaagenthub:problem:{code}",
        title=http.HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=code,
        issues=tuple(issues),
        hint=hint,
        current=None if current is None else dict(current),
    )
    sent = dict(headers or {})
    if status == http.HTTPStatus.SERVICE_UNAVAILABLE:
        sent.setdefault("Retry-After", str(RETRY_AFTER_SECONDS))
    return Response(
        problem.model_dump_json(exclude_none=True), status_code=status, media_type=PROBLEM_MEDIA_TYPE, headers=sent
    )


def response_of(error: ConstitutionError) -> Response:
    """Return the problem of one of our own errors."""
    return problem_response(
        error.status,
        error.code,
        error.message,
        issues=error.issues,
        hint=error.hint,
        current=error.current,
    )


def install(app: FastAPI) -> None:
    """Make ``app`` answer every error, its own and the framework's, as a problem."""
    app.add_exception_handler(ConstitutionError, _on_constitution_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    for transient in (TimeoutError, ConnectionError):
        app.add_exception_handler(transient, _on_transient)
    app.add_exception_handler(Exception, _on_defect)


class UnreadableRequestError(ContentError):
    """The body, the path, the query or a header is not what the route takes; lists every field."""

    code = "invalid-request"
    status = 422


async def _refused(request: Request, error: ConstitutionError) -> None:
    hook: RefusalHook | None = getattr(request.app.state, "on_refused", None)
    if hook is not None and request.method in MUTATING and error.permanent:
        await hook(request, error)


async def _on_constitution_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ConstitutionError)  # noqa: S101 - registered for this class only
    if error.permanent:
        await _refused(request, error)
    else:
        _log.warning("dependency_unavailable", path=request.url.path, reason=error.message)
    return response_of(error)


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this class only
    found = error.errors()
    issues = tuple(
        Issue(
            code=str(item["type"]),
            path="/" + "/".join(str(part)[:64] for part in item["loc"]),
            message=str(item["msg"])[:500],
        )
        for item in found[: MAX_ISSUES + 1]
    )
    refusal = UnreadableRequestError("the request is not what this route takes", issues=listed(issues, len(found)))
    await _refused(request, refusal)
    return response_of(refusal)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class only
    status = http.HTTPStatus(error.status_code)
    code = status.phrase.lower().replace(" ", "-")
    detail = f"{request.method} {request.url.path[:200]}: {error.detail}"
    return problem_response(error.status_code, code, detail, headers=error.headers)


async def _on_transient(request: Request, error: Exception) -> Response:
    _log.warning("dependency_unavailable", path=request.url.path, reason=f"{type(error).__name__}: {error}")
    return response_of(UnavailableError("something this service needs did not answer in time; try again"))


async def _on_defect(request: Request, error: Exception) -> Response:
    # Starlette re-raises after this answer, so the trace reaches the log once, through uvicorn's error logger.
    _log.error("defect", path=request.url.path, error=type(error).__name__)
    return problem_response(500, "defect", "this service made a mistake; it is in its log")
