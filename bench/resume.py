"""From the SIGKILL of the runbook worker in the middle of a release to the run's next step.

The worker is killed at a moment drawn evenly from the second after the board's last approval, in which the release goes
live. It is started anew at once, as systemd or Kubernetes would. The run has resumed when its history holds
a step that was scheduled after the kill: a workflow task has been completed by a worker again. Both moments are of one
machine's clock. The lower bound, measured after each kill: an interpreter that imports the worker and does nothing.
"""

import os
import random
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np

from bench.fleet import Fleet
from bench.numbers import summary
from bench.results import DIRECTORY, measuring
from bench.runs import BenchError
from deploy.demo.screen import Screen

TEMPLATES: Final = ("data-handling", "tool-use")
WITHIN_S: Final = 1.0
QUIET_S: Final = 60.0
SEED: Final = 20261130


def measure(screen: Screen, *, kills: int) -> None:
    """Kill so many workers; store ``resume``."""
    dice = random.Random(SEED)  # noqa: S311 - draws moments, no secrets
    with Fleet(DIRECTORY / "stack", screen) as fleet, measuring("resume") as result:
        fleet.end(fleet.update("tool-use", "default"))
        samples: list[dict[str, Any]] = []
        missed = 0
        while len(samples) < kills:
            fleet.runs.quiet(seconds=QUIET_S)
            sample = _one(fleet, TEMPLATES[(len(samples) + missed) % 2], dice.uniform(0, WITHIN_S))
            if sample is None:  # the release had no step left when the worker died
                missed += 1
                if missed > kills:
                    raise BenchError("most releases were over before the worker was killed")
                continue
            samples.append(sample)
            screen.say(f"  {len(samples)}/{kills} next step {sample['resumed_s']:.2f} s after the kill")
        result["kills"] = kills
        result["missed"] = missed
        result["samples"] = samples
        resumed = [sample["resumed_s"] for sample in samples]
        result["summary"] = {
            "resumed": summary(resumed),
            "resumed_p95": float(np.quantile(resumed, 0.95)),
            "bound": summary([sample["import_s"] for sample in samples]),
        }


def _one(fleet: Fleet, template: str, after_s: float) -> dict[str, Any] | None:
    run = fleet.update(template, "default")
    time.sleep(after_s)
    pid = fleet.pid("worker")
    killed = datetime.now(UTC)
    os.kill(pid, signal.SIGKILL)
    fleet.restart("worker")
    fleet.end(run)
    later = [step.scheduled for step in fleet.runs.timeline(run).steps if step.scheduled > killed]
    if not later:
        return None
    return {
        "after_s": after_s,
        "killed_at": killed.isoformat(),
        "resumed_s": (min(later) - killed).total_seconds(),
        "import_s": _import_seconds(),
    }


def _import_seconds() -> float:
    """Return how long an interpreter takes that imports the worker and does nothing: no restart can take less."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import worker"], check=True)
    return time.monotonic() - began
