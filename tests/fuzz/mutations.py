"""Seeded changes of bytes, of JSON, and of what is in JSON in base64."""

import base64
import binascii
import json
import random
from collections.abc import Callable, Iterator
from typing import Any, Final

ODD: Final[tuple[Any, ...]] = (
    None, True, 0, -1, 1.5, 10**9, 2**53, 2**63, 10**30, "", " ", "a\x00b", "\ud800", "\uff44eny", [], [[]], {},
    {"": {}}, "approve", "deny", "production", "development", "../../etc/passwd", "x" * 5000, "2020-01-01T00:00:00Z",
)  # fmt: skip


def flipped(rng: random.Random, data: bytes) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :]


def cut(rng: random.Random, data: bytes) -> bytes:
    one, other = sorted((rng.randrange(len(data)), rng.randrange(len(data) + 1)))
    return data[:one] + data[other:]


def repeated(rng: random.Random, data: bytes) -> bytes:
    one, other = sorted((rng.randrange(len(data)), rng.randrange(len(data) + 1)))
    return data[:other] + data[one:other] + data[other:]


def inserted(rng: random.Random, data: bytes) -> bytes:
    place = rng.randrange(len(data) + 1)
    return data[:place] + rng.choice((b"\x00", b"\r\n", b"\xef\xbb\xbf", b"[" * 100, rng.randbytes(3))) + data[place:]


BYTES: Final[tuple[Callable[[random.Random, bytes], bytes], ...]] = (flipped, cut, repeated, inserted)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of each value that holds no other."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    inner = list(items)
    if not inner:
        yield path
    for name, item in inner:
        yield from leaves(item, (*path, name))


def _in_base64(rng: random.Random, text: str) -> str | None:
    """What is in base64, changed inside; None if nothing is."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return base64.b64encode(mutated(rng, data)).decode() if len(data) > 8 else None


def rewritten(rng: random.Random, data: bytes) -> bytes:
    """JSON in which one value is another, is gone, or comes twice; other bytes where it is no JSON."""
    try:
        value = json.loads(data)
    except ValueError:
        return rng.choice(BYTES)(rng, data)
    path = rng.choice(list(leaves(value)))
    if not path:
        return json.dumps(rng.choice(ODD)).encode()
    return _at(rng, value, path)


def _at(rng: random.Random, value: Any, path: tuple[Any, ...]) -> bytes:
    holder = value
    for name in path[:-1]:
        holder = holder[name]
    name, how = path[-1], rng.randrange(4)
    inside = _in_base64(rng, holder[name]) if isinstance(holder[name], str) else None
    if inside is not None and how < 3:
        holder[name] = inside
    elif how == 0 and isinstance(holder, dict):
        del holder[name]
    elif how == 1 and isinstance(holder, dict):
        key = f"{json.dumps(name)}:"
        return json.dumps(value).replace(key, f"{key} {json.dumps(rng.choice(ODD))}, {key}", 1).encode()
    elif isinstance(holder[name], str) and how == 2 and holder[name]:
        holder[name] = flipped(rng, holder[name].encode()).decode("utf-8", "replace")
    else:
        holder[name] = rng.choice(ODD)
    return json.dumps(value, indent=rng.choice((None, None, 1))).encode()


def mutated(rng: random.Random, data: bytes) -> bytes:
    """One to three changes."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = (rewritten if rng.random() < 0.5 else rng.choice(BYTES))(rng, data) or b"\x00"
    return data
