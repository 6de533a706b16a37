"""Reads JSON of untrusted writers: size, UTF-8, nesting, duplicate keys, numbers and lone surrogates are checked first.

Python's own reader takes the last of two equal keys, ``NaN``, a lone surrogate and any depth until it recurses out;
two readers that differ on such input are how one document gets two meanings.
"""

import json
import re
from typing import Any, NoReturn

from constitution.errors import Issue

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 64
MAX_STRINGS = 2_000  # of a message of ours: a release has fewer than 300 keys and texts
MAX_OUTSIDE = 64 * 1024  # bytes outside of strings: a release has a few hundred, an indented one some thousand
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_OPENING = frozenset(b"[{")
_NO_BRACKET = bytes(byte for byte in range(256) if byte not in b"[]{}")


class StrictJsonError(ValueError):
    """The bytes are not acceptable JSON; ``issue`` says what and where."""

    def __init__(self, issue: Issue) -> None:
        super().__init__(issue.message)
        self.issue = issue


def _refuse(code: str, message: str, path: str = "") -> NoReturn:
    raise StrictJsonError(Issue(code=code, path=path, message=message))


def read(data: bytes, *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> Any:
    """Decode JSON strictly.

    Args:
        data: exact bytes.
        max_bytes: largest size taken.
        max_depth: deepest nesting of arrays and objects taken.

    Raises:
        StrictJsonError: too large, not UTF-8, too deep, not JSON (RFC 8259), a duplicate key, a number outside
            IEEE 754 double range, or a lone surrogate.
    """
    if len(data) > max_bytes:
        _refuse("too-large", f"{len(data)} bytes; at most {max_bytes} are taken")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        _refuse("not-utf-8", f"byte {error.start} is not UTF-8 ({error.reason})")
    depth = _depth(data)
    if depth > max_depth:
        _refuse("too-deep", f"nested {depth} deep; at most {max_depth} are taken")
    try:
        value = json.loads(
            text, object_pairs_hook=_pairs, parse_constant=_constant, parse_float=_float, parse_int=_integer
        )
    except json.JSONDecodeError as error:
        _refuse("not-json", f"{error.msg} at line {error.lineno}, column {error.colno}")
    if "\\u" in text:
        _no_surrogates(value)
    return value


def require_simple(data: bytes) -> None:
    """Refuse what costs its reader far more than its size: thousands of keys or items where a message has a few.

    A JSON reader in C holds the interpreter until it is done, in any thread, and a validator notes a problem for
    each unknown key: 15 MiB of them take 20 s. Here the first few thousand strings are looked at, and no more.

    Raises:
        StrictJsonError: more than ``MAX_STRINGS`` strings, or more than ``MAX_OUTSIDE`` bytes beside them.
    """
    outside = len(data)
    for number, found in enumerate(_STRING.finditer(data), start=1):
        outside -= found.end() - found.start()
        if number > MAX_STRINGS:
            _refuse("too-many-values", f"it holds more than {MAX_STRINGS} strings")
    if outside > MAX_OUTSIDE:
        _refuse("too-many-values", f"it holds {outside} bytes outside of strings; at most {MAX_OUTSIDE} are taken")


def _depth(data: bytes) -> int:
    """Return the deepest nesting of brackets outside strings; needs no valid JSON."""
    depth = deepest = 0
    for byte in _STRING.sub(b"", data).translate(None, _NO_BRACKET):
        if byte in _OPENING:
            depth += 1
            deepest = max(deepest, depth)
        else:
            depth -= 1
    return deepest


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                _refuse("duplicate-key", f"the key {key[:64]!a} stands twice in one object")
            seen.add(key)
    return result


def _constant(name: str) -> NoReturn:
    _refuse("not-json", f"{name} is no JSON number")


def _float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        _refuse("number-range", f"the number {text[:32]} does not fit a double")
    return value


def _integer(text: str) -> int:
    if len(text) > 20:  # beyond 64 bits readers differ, and very long ones cost quadratic time
        _refuse("number-range", f"the integer {text[:32]} is longer than 20 digits")
    return int(text)


def _no_surrogates(value: Any) -> None:
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            _refuse("lone-surrogate", f"the text {value[:32]!a} holds half a surrogate pair")
    elif isinstance(value, list):
        for item in value:
            _no_surrogates(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            _no_surrogates(key)
            _no_surrogates(item)
