"""Reads TOML that people write: size, nesting, length of dotted keys and numbers are checked beside Python's reader.

Python's own reader takes time quadratic in the parts of one dotted key, integers of any length, ``inf`` and ``nan``,
and leaves some refusals to exceptions that are not its own. Source: toml.io/en/v1.0.0 (integers are of 64 bits).
"""

import math
import re
import tomllib
from typing import Any, NoReturn

from constitution.errors import InvalidRequestError

MAX_CHARACTERS = 256 * 1024  # a person with two keys takes 400: a trust policy of hundreds of people fits
MAX_DEPTH = 64  # of arrays and inline tables
MAX_KEY_PARTS = 16  # a.b.c has three; ours have at most two
MAX_INTEGER = 2**63 - 1

_TEXT = re.compile(
    # Not possessive as a whole: Python before 3.11.5 matches too little then (python/cpython#106052).
    r'"""[^"\\]*+(?:(?:\\.|\\\Z|"(?!""))[^"\\]*+)*(?:"{3,5}|\Z)'
    r"|'''.*?(?:'{3,5}|\Z)"
    r'|"(?:[^"\\\n]|\\.)*+"?'
    r"|'[^'\n]*+'?",
    re.DOTALL,
)
_TEXT_OR_COMMENT = re.compile(rf"(?P<text>{_TEXT.pattern})|#[^\n]*+", re.DOTALL)
_LONG_KEY = re.compile(rf"(?<![\w.-])(?:[\w-]++[ \t]*+\.[ \t]*+){{{MAX_KEY_PARTS}}}")
_BRACKET = re.compile(r"[\[{\]}]")


def read(text: str, *, what: str) -> dict[str, Any]:
    """Decode TOML.

    Args:
        text: the file's text.
        what: its name, for messages.

    Raises:
        InvalidRequestError: in one line: too large, nested too deep, a key of too many parts, not TOML, an integer
            beyond 64 bits, or a number that is not finite.
    """

    def refuse(problem: str) -> NoReturn:
        raise InvalidRequestError(f"{what} {problem}")

    if len(text) > MAX_CHARACTERS:
        refuse(f"has {len(text)} characters; at most {MAX_CHARACTERS} are taken")
    bare = _TEXT_OR_COMMENT.sub(lambda found: "s" if found["text"] else "", text)
    if _LONG_KEY.search(bare):
        refuse(f"has a key of more than {MAX_KEY_PARTS} parts")
    depth = deepest = 0
    for bracket in _BRACKET.finditer(bare):
        depth += 1 if bracket[0] in "[{" else -1
        deepest = max(deepest, depth)
    if deepest > MAX_DEPTH:
        refuse(f"is nested {deepest} deep; at most {MAX_DEPTH} are taken")
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        refuse(f"is not TOML: {' '.join(str(error).split())[:300]}")
    except (ValueError, RecursionError):  # Python's limit on digits; a RecursionError is one of its own limits
        refuse("is not TOML: it has a number of thousands of digits, or is nested too deep")
    if number := _bad_number(data):
        refuse(number)
    return data


def _bad_number(data: dict[str, Any]) -> str:
    """Return why a number somewhere in it is refused, or nothing."""
    waiting: list[Any] = [data]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, int) and not -MAX_INTEGER - 1 <= value <= MAX_INTEGER:
            return "has an integer beyond 64 bits"
        elif isinstance(value, float) and not math.isfinite(value):
            return "has a number that is not finite"
    return ""
