"""The one place that turns errors into Temporal's ``ApplicationError``: type, retryable or not, details for a person.

``ContentError`` (permanent where it was raised) becomes non-retryable, ``TransportError`` retryable, both with the
error's stable ``code`` as type; an unforeseen error is retryable with type ``unexpected`` and its cause kept, so
that the policy's finite attempts end in a visible ``needs a person`` and not in a lost root cause. Cancellation and
errors that are Temporal's already pass through untouched.

Details hold one JSON object ``{code, message, issues, hint}``: workflows read it, never the message text.
"""

import functools
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, ClassVar, Concatenate, ParamSpec, TypeVar

from temporalio.exceptions import ApplicationError, FailureError

from constitution.errors import ConflictError, ConstitutionError, TransportError

UNEXPECTED = "unexpected"
"""``type`` of a failure that no code here foresaw."""

_S = TypeVar("_S")
_P = ParamSpec("_P")
_R = TypeVar("_R")


class NotConvergedError(ConflictError):
    """A target does not obey the release at the deadline: it lags, does not answer, or decides otherwise."""

    code: ClassVar[str] = "not-converged"


def to_application_error(error: ConstitutionError) -> ApplicationError:
    """Return the failure that a workflow reads, with ``error.diagnostics()`` as its message."""
    details: dict[str, Any] = {
        "code": error.code,
        "message": error.message,
        "issues": [issue.model_dump(mode="json") for issue in error.issues],
        "hint": error.hint,
    }
    after_s = error.after_s if isinstance(error, TransportError) else None
    return ApplicationError(
        error.diagnostics(),
        details,
        type=error.code,
        non_retryable=error.permanent,
        next_retry_delay=None if after_s is None else timedelta(seconds=after_s),
    )


def classified(
    work: Callable[Concatenate[_S, _P], Awaitable[_R]],
) -> Callable[Concatenate[_S, _P], Awaitable[_R]]:
    """Decorate an activity so that each error it raises is classified.

    Raises:
        ApplicationError: for every ``Exception`` of ``work`` that is not already a failure of Temporal's.
    """

    @functools.wraps(work)
    async def run(self: _S, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return await work(self, *args, **kwargs)
        except FailureError:
            raise
        except ConstitutionError as error:
            raise to_application_error(error) from error
        except Exception as error:  # an unforeseen error: retryable, so that finite attempts make it visible
            raise ApplicationError(f"{type(error).__name__}: {error}", type=UNEXPECTED) from error

    return run
