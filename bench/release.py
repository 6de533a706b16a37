"""From the commit of a release to the last target's obeying it, beside its lower bound; and memory before and after.

Updates and rollbacks take turns, through the whole product: command line, workflows, gate, board, service, relay,
Kafka, targets. A measured release begins only when every earlier run has closed.
"""

from dataclasses import asdict
from typing import Any

from bench.bound import LowerBound
from bench.fleet import Fleet
from bench.memory import memory
from bench.numbers import summary
from bench.results import DIRECTORY, measuring
from deploy.demo.screen import Screen

TEMPLATES = ("data-handling", "tool-use")  # in turn, so that each update changes rules
QUIET_S = 60.0
MORE_ENGINES = 6
"""Besides the four targets that a stack starts: the goal is for ten."""


def measure(screen: Screen, *, releases: int) -> None:
    """Make so many releases after the first one; store ``release`` and ``memory``."""
    with (
        Fleet(DIRECTORY / "stack", screen, MORE_ENGINES) as fleet,
        measuring("release") as result,
        measuring("memory") as used,
    ):
        fleet.end(fleet.update("tool-use", "default"))
        fleet.runs.quiet(seconds=QUIET_S)
        used["before"] = memory(fleet.processes())
        samples = []
        with LowerBound(fleet.settings, fleet.environment.environment) as bound:
            for number in range(releases):
                sample = _one(fleet, number) | {"bound": asdict(bound.measure())}
                samples.append(sample)
                screen.say(
                    f"  {number + 1}/{releases} {sample['kind']:<8} obeyed everywhere after {sample['obeyed_s']:.3f} s"
                )
        used["after"] = memory(fleet.processes())
        used["releases"] = releases
        result["releases"] = releases
        result["targets"] = len(fleet.environment.targets)
        result["samples"] = samples
        result["summary"] = summarised(samples)


def summarised(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the quantiles of everything measured, in seconds, and the ratios to the lower bound."""
    bound = [sum(sample["bound"].values()) for sample in samples]
    obeyed = [sample["obeyed_s"] for sample in samples]
    of_kind = {kind: [s for s in samples if s["kind"] == kind] for kind in ("update", "rollback")}
    found: dict[str, Any] = {
        "obeyed": summary(obeyed),
        "first_target": summary([sample["first_target_s"] for sample in samples]),
        "bound": summary(bound),
        **{f"bound_{part}": summary([s["bound"][part] for s in samples]) for part in ("kafka", "fetch", "verify")},
    }
    for kind, of in of_kind.items():
        if of:
            found[f"obeyed_{kind}"] = summary([s["obeyed_s"] for s in of])
            found[f"run_{kind}"] = summary([s["run_s"] for s in of])
            found[f"decided_{kind}"] = summary([s["decided_s"] for s in of])
    found["ratio"] = {q: found["obeyed"][q] / found["bound"][q] for q in ("p50", "p99")}
    return found


def _one(fleet: Fleet, number: int) -> dict[str, Any]:
    kind = "rollback" if number % 2 else "update"
    run = fleet.rollback() if kind == "rollback" else fleet.update(TEMPLATES[number // 2 % 2], "default")
    fleet.end(run)
    live = fleet.live()
    timeline = fleet.runs.timeline(run)
    assert timeline.closed is not None  # noqa: S101 - the run has ended; for the type checker
    # A rollback's approvals are those of the release that it undoes: it is decided when it starts.
    decided = timeline.done("check_decision") if kind == "update" else timeline.started
    fleet.runs.quiet(seconds=QUIET_S)
    return {
        "kind": kind,
        "generation": live.generation,
        "effective_at": live.effective_at.isoformat(),
        "loaded_at": {target: at.isoformat() for target, at in live.loaded_at.items()},
        "obeyed_s": live.seconds,
        "first_target_s": (min(live.loaded_at.values()) - live.effective_at).total_seconds(),
        "run_s": (timeline.closed - timeline.started).total_seconds(),
        "decided_s": (timeline.closed - decided).total_seconds(),
    }
