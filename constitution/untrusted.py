"""Reads a message that anybody may have written (a Redis value, a Kafka record, an answer) at a bounded cost."""

from typing import TypeVar

from constitution.model import Model
from constitution.strict_json import require_simple

_Message = TypeVar("_Message", bound=Model)


def read_message(kind: type[_Message], data: bytes) -> _Message:
    """Return a message of the right shape; the caller verifies its signatures.

    Raises:
        ValueError: it is no such message (pydantic's error), or costs too much to read (``StrictJsonError``).
    """
    require_simple(data)
    return kind.model_validate_json(data)
