"""From the watch's verdict to the restored release on every target, stage by stage, with the demo's traffic.

Each anomaly is real: a constitution that refuses too much, agents that ask again, evaluations that spike. The
verdict's moment is ``WatchReport.decided_at``, the scrape at which the test crossed its limit; each later moment is
from Temporal's histories, from Postgres (``effective_at``) or from the targets (``loaded_at``): one machine's clock.
"""

from datetime import datetime
from typing import Any, Final

from bench.fleet import Fleet
from bench.numbers import summary
from bench.results import DIRECTORY, measuring
from bench.runs import BenchError, Runs, Timeline
from constitution.names import Names
from deploy.demo.screen import Screen

CALM_S: Final = 66.0
"""Steady traffic before each release: its baseline of 60 s, and the scrapes at both ends."""
QUIET_S: Final = 60.0

STAGES: Final = (
    "judged, evidence stored",
    "update fenced",
    "rollback started",
    "environment read",
    "guard started, lease taken",
    "planned",
    "restored release committed",
    "obeyed everywhere",
)


def measure(screen: Screen, *, anomalies: int) -> None:
    """Have so many releases undone by the watch; store ``undo``."""
    with Fleet(DIRECTORY / "stack", screen) as fleet, fleet.traffic(), measuring("undo") as result:
        fleet.end(fleet.update("tool-use", "default"))
        samples = []
        for number in range(anomalies):
            fleet.runs.quiet(seconds=QUIET_S)
            fleet.calm(CALM_S)
            sample = _one(fleet)
            samples.append(sample)
            screen.say(f"  {number + 1}/{anomalies} restored everywhere {sample['total_s']:.3f} s after the verdict")
        result["anomalies"] = anomalies
        result["targets"] = len(fleet.environment.targets)
        result["samples"] = samples
        result["summary"] = summarised(samples)


def summarised(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Return quantiles of the whole and of each stage, in seconds."""
    return {
        "total": summary([sample["total_s"] for sample in samples]),
        "known": summary([sample["known_s"] for sample in samples]),
        "stages": {stage: summary([sample["stages"][stage] for sample in samples]) for stage in STAGES},
    }


def _one(fleet: Fleet) -> dict[str, Any]:
    run = fleet.update("lockdown", "measured")
    fleet.end(run, outcome="RolledBack")
    live = fleet.live()
    update = fleet.runs.timeline(run)
    report = update.last("watch_metric").result
    if report["verdict"] != "anomaly":
        raise BenchError(f"{run} was undone without an anomaly: {report['verdict']}, {report['detail']}")
    rollback = _rollback(fleet.runs, fleet, live.generation - 1)
    decided = datetime.fromisoformat(report["decided_at"])
    moments = _moments(update, rollback, live.effective_at, live.everywhere_at)
    stages = {}
    before = decided
    for stage in STAGES:
        stages[stage] = (moments[stage] - before).total_seconds()
        before = moments[stage]
    return {
        "generation": live.generation,
        "decided_at": decided.isoformat(),
        "effective_at": live.effective_at.isoformat(),
        "loaded_at": {target: at.isoformat() for target, at in live.loaded_at.items()},
        "stages": stages,
        "total_s": (live.everywhere_at - decided).total_seconds(),
        "known_s": (live.everywhere_at - moments["judged, evidence stored"]).total_seconds(),
        "detail": report["detail"],
    }


def _rollback(runs: Runs, fleet: Fleet, bad_generation: int) -> Timeline:
    names = Names(fleet.settings.get("NAMESPACE", ""))
    return runs.timeline(names.rollback_id(fleet.environment.environment, bad_generation))


def _moments(
    update: Timeline, rollback: Timeline, effective_at: datetime, everywhere_at: datetime
) -> dict[str, datetime]:
    return {
        "judged, evidence stored": update.done("watch_metric"),
        "update fenced": update.done("fence_and_look"),
        "rollback started": rollback.started,
        "environment read": rollback.done("read_deployment"),
        "guard started, lease taken": rollback.done("acquire_lease"),
        "planned": rollback.done("plan_rollback"),
        "restored release committed": effective_at,
        "obeyed everywhere": everywhere_at,
    }
