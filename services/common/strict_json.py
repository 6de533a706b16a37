"""Strict JSON of a request's body: what the domain refuses, and what PostgreSQL could not store.

Beyond ``constitution.strict_json``: NUL in strings (no PostgreSQL text) and integers beyond 2^53-1, which JSON
readers do not agree about (RFC 7493 §2.2) and ``bigint`` may not hold.
"""

from collections.abc import Iterator
from typing import Any

from constitution.errors import InvalidRequestError
from constitution.strict_json import StrictJsonError, read

MAX_VALUES = 20_000  # keys, items and values of one body; each can be a problem to list, and 20,000 take 50 ms
_MAX_INTEGER = 2**53 - 1


def loads(data: bytes) -> Any:
    """Return the value of strict JSON.

    Raises:
        InvalidRequestError: naming the first thing that is wrong and where.
    """
    try:
        value = read(data, max_bytes=len(data))  # the size is the body limit's business
    except StrictJsonError as error:
        raise InvalidRequestError(f"the body cannot be read: {error.issue.message}", issues=(error.issue,)) from error
    for count, leaf in enumerate(_leaves(value)):
        if count >= MAX_VALUES:
            raise InvalidRequestError(f"the body holds more than {MAX_VALUES} keys and values")
        if isinstance(leaf, str) and "\x00" in leaf:
            raise InvalidRequestError("a string holds the character NUL, which cannot be stored")
        if isinstance(leaf, int) and abs(leaf) > _MAX_INTEGER:
            raise InvalidRequestError(f"the integer {leaf} is out of range (at most 2^53-1)")
    return value


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield None  # an empty list or object counts too
            yield from _leaves(item)
    else:
        yield value
