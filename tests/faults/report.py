"""Keeps what was found in var/chaos/report.json, cell by cell, and writes docs/reliability.md from it."""

import fcntl
import json
import os
import platform
import statistics
from collections import Counter, defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.machine import machine
from tests.faults.auditor import INVARIANTS
from tests.faults.cells import SEED, Cell
from tests.faults.runner import Result

CHECKOUT = Path(__file__).resolve().parents[2]
REPORT = CHECKOUT / "var" / "chaos" / "report.json"
PAGE = CHECKOUT / "docs" / "reliability.md"


def load(file: Path = REPORT) -> dict[str, dict[str, Any]]:
    """Results by cell id; empty where none was run."""
    if not file.exists():
        return {}
    cells: dict[str, dict[str, Any]] = json.loads(file.read_text())["cells"]
    return cells


def keep(result: Result, file: Path = REPORT) -> None:
    """Add one result; shards that run at the same time write one after another, each the whole file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        seen = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "commit": machine()["commit"]}
        cells = load(file) | {result.id: result.as_json() | seen}
        whole = {"seed": SEED, "machine": measured_on(), "cells": dict(sorted(cells.items()))}
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(whole, indent=1) + "\n")
        partial.replace(file)


def measured_on() -> str:
    """What the numbers were measured on."""
    return f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"


def page(cells: tuple[Cell, ...], results: dict[str, dict[str, Any]]) -> str:
    """The text of docs/reliability.md between its markers: what was run, what was found, what was not run yet."""
    mine = {cell.id: results[cell.id] for cell in cells if cell.id in results}
    red = [r for r in mine.values() if not r["green"]]
    checks: Counter[int] = Counter()
    for result in mine.values():
        checks.update({int(number): times for number, times in result["checks"].items()})
    lines = [
        _summary(cells, mine),
        "",
        "| invariant (architecture §6) | comparisons |",
        "|---|---|",
        *(f"| {number}. {text} | {checks[number]} |" for number, text in INVARIANTS.items()),
        "",
        *_by("fault", mine, cells),
        *_by("system", mine, cells),
        *_by("situation", mine, cells),
        *_red(red),
        *_pending([cell for cell in cells if cell.id not in mine]),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _summary(cells: tuple[Cell, ...], mine: dict[str, dict[str, Any]]) -> str:
    green = sum(result["green"] for result in mine.values())
    commits = Counter(result.get("commit", "unknown") for result in mine.values())
    said = ", ".join(commit if len(commits) == 1 else f"{commit} ({times})" for commit, times in commits.most_common())
    hours = sum(result["seconds"] for result in mine.values()) / 3600
    return (
        f"Matrix of seed {SEED}: {len(cells)} cells; {len(mine)} run, {green} green, {len(mine) - green} red, "
        f"{len(cells) - len(mine)} not yet run; {hours:.1f} hours of cells, of which shards run side by side. "
        f"Commit {said}. Measured on {measured_on()}, shared with other work: every time is an upper bound."
    )


def _by(factor: str, mine: dict[str, dict[str, Any]], cells: tuple[Cell, ...]) -> list[str]:
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for result in mine.values():
        groups[result["cell"][factor]].append(result)
    planned = Counter(getattr(cell, factor) for cell in cells)
    lines = [
        f"| {factor} | cells | run | green | recovery p50 s | p99 s | outcomes |",
        "|---|---|---|---|---|---|---|",
    ]
    for value in sorted(planned):
        found = groups[value]
        times = [r["recovery_s"] for r in found if r["recovery_s"] is not None]
        outcomes = Counter(r["outcome"] or "none" for r in found)
        said = ", ".join(f"{times_} {name}" for name, times_ in outcomes.most_common())
        green = sum(r["green"] for r in found)
        p50, p99 = _quantiles(times)
        lines.append(f"| {value} | {planned[value]} | {len(found)} | {green} | {p50} | {p99} | {said} |")
    return [*lines, ""]


def _quantiles(times: list[float]) -> tuple[str, str]:
    if not times:
        return "", ""
    if len(times) == 1:
        return f"{times[0]:.1f}", f"{times[0]:.1f}"
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return f"{statistics.median(times):.1f}", f"{cuts[98]:.1f}"


def _red(red: list[dict[str, Any]]) -> list[str]:
    if not red:
        return []
    lines = ["### Red cells", "", "| cell | what | found | again |", "|---|---|---|---|"]
    for result in red:
        what = " / ".join(result["cell"].values())
        if result["findings"] or result["error"]:
            found = "; ".join(result["findings"]) or result["error"]
        else:
            found = f"{result['outcome']}, allowed: {', '.join(result['allowed'])}; {result.get('detail', '')}"
        text = found.replace("|", "\\|").replace("\n", " ")[:300]
        lines.append(f"| {result['id']} | {what} | {text} | `{result['command']}` |")
    return [*lines, ""]


def _pending(cells: list[Cell]) -> list[str]:
    if not cells:
        return []
    return ["### Not yet run", "", ", ".join(f"`{cell.id}`" for cell in cells), ""]


BEGIN, END = "<!-- begin: generated by `python -m tests.faults --page` -->", "<!-- end -->"


def write_page(cells: tuple[Cell, ...], file: Path = PAGE) -> None:
    """Put the generated part between the markers of docs/reliability.md."""
    text = file.read_text()
    head, rest = text.split(BEGIN, 1)
    tail = rest.split(END, 1)[1]
    file.write_text(f"{head}{BEGIN}\n\n{page(cells, load())}\n{END}{tail}")
