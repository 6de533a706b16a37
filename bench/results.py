"""Where results are kept: one JSON file a benchmark under ``var/bench``, written whole or not at all."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from bench.machine import CHECKOUT, machine, moment

DIRECTORY: Final = CHECKOUT / "var" / "bench"


@contextmanager
def measuring(name: str) -> Iterator[dict[str, Any]]:
    """Give an empty result to fill; on leaving it is stored, with machine and moments. An error stores nothing."""
    result: dict[str, Any] = {"name": name, "machine": machine(), "begun": moment()}
    yield result
    result["ended"] = moment()
    store(result)


def store(result: dict[str, Any]) -> None:
    """Store a result under its name."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    path = DIRECTORY / f"{result['name']}.json"
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)  # noqa: PTH105 - atomic, and says so


def load(name: str) -> dict[str, Any] | None:
    """Return a stored result, or None."""
    path = DIRECTORY / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
