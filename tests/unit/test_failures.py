"""How errors become failures that a workflow can read."""

import asyncio
from datetime import timedelta

import pytest
from temporalio.exceptions import ApplicationError

from activities.failures import NotConvergedError, classified
from constitution import errors
from constitution.errors import ConstitutionError, Issue


def _tree(root: type[ConstitutionError]) -> list[type[ConstitutionError]]:
    return [root, *(kind for child in root.__subclasses__() for kind in _tree(child))]


class Raises:
    def __init__(self, error: BaseException) -> None:
        self._error = error

    @classified
    async def do(self, what: str) -> str:
        """Do it."""
        if what == "well":
            return "done"
        raise self._error


async def failure_of(error: BaseException) -> ApplicationError:
    with pytest.raises(ApplicationError) as caught:
        await Raises(error).do("badly")
    return caught.value


@pytest.mark.parametrize("kind", _tree(errors.ContentError), ids=lambda kind: kind.__name__)
async def test_content_errors_are_never_retried_and_keep_their_code(kind: type[ConstitutionError]) -> None:
    failure = await failure_of(kind("the bytes are wrong"))
    assert failure.non_retryable
    assert failure.type == kind.code


@pytest.mark.parametrize("kind", _tree(errors.TransportError), ids=lambda kind: kind.__name__)
async def test_transport_errors_are_retried_and_keep_their_code(kind: type[ConstitutionError]) -> None:
    failure = await failure_of(kind("no answer"))
    assert failure.non_retryable == (kind is errors.UnsupportedServerError)  # what answers so will answer so again
    assert failure.type == kind.code


async def test_a_wait_that_the_other_side_asked_for_is_the_next_retrys() -> None:
    error = errors.UnavailableError("too many calls")
    assert (await failure_of(error)).next_retry_delay is None
    error.after_s = 30.0
    assert (await failure_of(error)).next_retry_delay == timedelta(seconds=30)


async def test_details_carry_every_issue_and_the_next_command() -> None:
    issue = Issue(code="version-order", path="/version", message="is not higher")
    error = errors.InvalidRequestError("two problems", issues=[issue], hint="constitution draft")
    failure = await failure_of(error)
    assert failure.details == (
        {
            "code": "invalid-request",
            "message": "two problems",
            "issues": [{"code": "version-order", "path": "/version", "message": "is not higher", "hint": ""}],
            "hint": "constitution draft",
        },
    )
    assert failure.message == error.diagnostics()
    assert failure.__cause__ is error


async def test_what_nobody_foresaw_is_retryable_and_keeps_its_cause() -> None:
    error = ZeroDivisionError("by zero")
    failure = await failure_of(error)
    assert (failure.type, failure.non_retryable) == ("unexpected", False)
    assert failure.message == "ZeroDivisionError: by zero"
    assert failure.__cause__ is error


async def test_failures_of_temporal_pass_through_as_they_are() -> None:
    error = ApplicationError("said already", type="mine", non_retryable=True)
    assert await failure_of(error) is error


async def test_a_cancel_stays_a_cancel() -> None:
    with pytest.raises(asyncio.CancelledError):
        await Raises(asyncio.CancelledError()).do("badly")


async def test_an_activity_that_succeeds_returns_what_it_returns() -> None:
    assert await Raises(ValueError("unused")).do("well") == "done"


def test_a_target_that_does_not_converge_has_a_code_of_its_own() -> None:
    others = {kind.code for kind in _tree(ConstitutionError) if kind is not NotConvergedError}
    assert NotConvergedError.code == "not-converged"
    assert NotConvergedError.code not in others
