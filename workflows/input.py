"""Reads people's input: raw values, checked in code, so that bad input fails the run and never stalls a task.

A payload that Temporal's converter cannot decode into a typed argument fails the workflow *task*: the run looks
"Running" for ever. So arguments are taken as RawValue and read here.
"""

from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue

from constitution import strict_json
from constitution.environment import issues_of
from constitution.errors import InvalidRequestError, Issue

NOTHING: Final = RawValue(Payload())
"""The value of a handler's argument when none was sent."""

_SEVERAL: Final = b"several/arguments"


def several(count: int) -> RawValue:
    """Return what a handler gets when ``count`` arguments were sent; :func:`read` refuses it."""
    return RawValue(Payload(metadata={"encoding": _SEVERAL}, data=str(count).encode()))


MAX_BYTES: Final = 64 * 1024
"""A request is typed by a person; a signed envelope is under 8 KiB."""

MAX_ISSUES: Final = 20
"""A refusal stands in failure, status, channel and audit stream: thousands of lines would exceed Temporal's 2 MiB."""

MAX_VALUES: Final = 200
"""Values in one input, all levels together; ours have 12. Listing thousands of problems takes a tenth of a second each
time, and a workflow task that does so for several messages at once meets Temporal's deadlock detector (2 s)."""

ModelT = TypeVar("ModelT", bound=BaseModel)


def _count(value: object) -> int:
    """Return how many values there are in a decoded JSON value, itself included."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(_count, items))


def read(model: type[ModelT], raw: RawValue, *, hint: str) -> ModelT:
    """Return ``raw`` as ``model``.

    Args:
        model: what it should be.
        raw: one JSON object as ``json/plain``; nothing at all reads as ``{}``.
        hint: the command that shows how it is done right.

    Raises:
        InvalidRequestError: with every problem listed.
    """
    payload = raw.payload
    encoding = payload.metadata.get("encoding", b"")
    data = payload.data or b"{}"
    if encoding == _SEVERAL:
        raise InvalidRequestError(f"the input must be one JSON object; {data.decode()} arguments were sent", hint=hint)
    if encoding not in (b"", b"json/plain", b"json/protobuf", b"binary/null"):
        raise InvalidRequestError(f"the input must be one JSON object, not {encoding[:64]!r}", hint=hint)
    if len(data) > MAX_BYTES:
        raise InvalidRequestError(f"the input has {len(data)} bytes; {MAX_BYTES} are allowed", hint=hint)
    try:
        value = strict_json.read(data)
    except strict_json.StrictJsonError as error:
        raise InvalidRequestError(f"the input is not JSON: {error}", hint=hint) from error
    if _count(value) > MAX_VALUES:
        raise InvalidRequestError(f"the input holds more than {MAX_VALUES} values", hint=hint)
    if not isinstance(value, dict):
        raise InvalidRequestError(f"the input must be one JSON object, not {type(value).__name__}", hint=hint)
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        issues = issues_of(error)
        if len(issues) > MAX_ISSUES:
            more = Issue(code="more", message=f"and {error.error_count() - MAX_ISSUES} more problems")
            issues = (*issues[:MAX_ISSUES], more)
        raise InvalidRequestError("the input is not valid", issues=issues, hint=hint) from error
