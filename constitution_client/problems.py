"""Turns an HTTP answer that is no success into the error of ``constitution.errors`` that it stands for.

Decides by the problem's stable ``code`` (RFC 9457 body of constitution-service), never by message text. An answer that
is no problem document comes from something in between (an ingress, a login page), not from the service: it refuses
nothing, the service cannot be asked now.
"""

import json
from collections.abc import Iterator

from pydantic import ValidationError

from constitution.api import Problem
from constitution.errors import (
    ConflictError,
    ConstitutionError,
    ContentError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    UnavailableError,
)

_TRANSIENT_STATUS = frozenset({408, 425, 429})  # 4xx that say "later", not "never" (RFC 9110 15.5.9, 8470, 6585)
_BY_STATUS: dict[int, type[ContentError]] = {
    400: InvalidRequestError,
    401: ForbiddenError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
}
_EXCERPT = 200  # characters of an unreadable answer that are worth showing


def _tree(root: type[ConstitutionError]) -> Iterator[type[ConstitutionError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


# The tree of the domain only: a subclass made elsewhere inherits its parent's code and must not replace it.
_BY_CODE = {kind.code: kind for kind in _tree(ConstitutionError) if kind.__module__ == ConstitutionError.__module__}


def error_of(status: int, body: bytes, *, what: str) -> tuple[ConstitutionError, str]:
    """Return the error that an answer with ``status`` >= 300 stands for, and the problem's code (empty: no problem).

    Args:
        status: HTTP status.
        body: the answer's bytes; hostile until parsed.
        what: which call it was, for the message, e.g. ``POST /v1/constitution/load``.
    """
    problem = _parse(body)
    transient = status >= 500 or status in _TRANSIENT_STATUS
    if problem is None:
        excerpt = body[:_EXCERPT].decode("utf-8", "replace").strip()
        message = f"{what} was answered with HTTP {status}" + (f": {excerpt!r}" if excerpt else "")
        hint = "check CONSTITUTION_SERVICE_URL: this answer is not constitution-service's own"
        return UnavailableError(message, hint=hint), ""
    kind = _BY_CODE.get(problem.code)
    if kind is None or kind.permanent is transient:
        kind = UnavailableError if transient else _BY_STATUS.get(status, ContentError)
    error = kind(problem.detail or problem.title, issues=problem.issues, hint=problem.hint, current=problem.current)
    return error, problem.code


def _parse(body: bytes) -> Problem | None:
    try:
        return Problem.model_validate(json.loads(body))
    except (ValueError, ValidationError, RecursionError):
        return None
