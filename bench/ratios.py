"""The ratios of a result: what is compared from commit to commit, because times are the machine's. Lower is better."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from bench.machine import CHECKOUT
from bench.results import load

RESULTS: Final = CHECKOUT / "bench" / "results.json"
ALLOWED: Final = 1.15
"""A ratio that has grown by more than this factor is called slower: below it, it is the machine's mood."""


def ratios(result: dict[str, Any]) -> dict[str, float]:
    """Return the ratios to a lower bound or rival that was measured in the same run, by name."""
    summary = result["summary"]
    match result["name"]:
        case "read" | "engine":
            return {
                f"{row['asked']}, {row['connections']} connections, {kind}": row[f"{kind}_ratio"]["p50"]
                for row in summary
                if row["server"] in {"service", "engine"}
                for kind in ("rate", "cpu")
            }
        case "verify":
            return {row["kind"]: row["ratio"] for row in summary}
        case "release":
            return {f"commit to obeyed, {quantile}": summary["ratio"][quantile] for quantile in ("p50", "p99")}
        case "overhead":
            return {"last approval to proved": summary["ratio"]["product"]}
        case "fanout":
            return {
                f"{row['targets']} targets, {'1 % late' if row['late'] else 'none late'}": row["ratio"]
                for row in summary
                if row["targets"] >= LEAST_TARGETS
            }
    return {}


LEAST_TARGETS: Final = 1_000
"""Asking fewer is over in less time than the machine's mood lasts."""

NAMES: Final = ("read", "engine", "release", "overhead", "verify", "fanout")


def record(file: Path = RESULTS) -> None:
    """Keep the ratios of every stored result, with the conditions under which each was measured."""
    kept: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    for name in NAMES:
        result = load(name)
        if result is not None:
            conditions = {"commit": result["machine"]["commit"], "load_before": result["begun"]["load_1min"]}
            kept[name] = {"at": result["begun"]["at"], **conditions, "ratios": ratios(result)}
    file.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def slower(recorded: dict[str, Any], results: Iterable[dict[str, Any]]) -> list[str]:
    """Return what of some results is slower than what was recorded, one line each."""
    found = []
    for result in results:
        name = result["name"]
        known = recorded.get(name, {"ratios": {}})
        for what, ratio in ratios(result).items():
            before = known["ratios"].get(what)
            if before is not None and ratio > ALLOWED * before:
                found.append(f"{name}: {what}: {ratio:.2f}, recorded {before:.2f} ({known['commit']})")
    return found
