"""What a drill found: a table for people, JSON for programs. Pure."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill of the worker.

    Attributes:
        run: ``update`` or ``rollback``.
        step: of the runbook.
        activity: that was running; empty where the run waited for people.
        moment: ``running``, ``just done`` (it ended before the signal came) or ``waiting``.
        polling_s: seconds from the kill until the new worker polled.
        done_s: seconds from the kill until the step was done; 0 if it was done already.
        attempts: that the activity took in all.
    """

    run: str
    step: str
    activity: str
    moment: str
    polling_s: float
    done_s: float
    attempts: int


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that had to be true at the end."""

    what: str
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that a drill found."""

    kills: tuple[Kill, ...]
    checks: tuple[Check, ...]
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return {
            "passed": self.passed,
            "seconds": round(self.seconds, 1),
            "kills": [asdict(kill) for kill in self.kills],
            "recovery": {
                "kills": len(self.kills),
                "polling_s_max": max((kill.polling_s for kill in self.kills), default=None),
                "done_s_max": max((kill.done_s for kill in self.kills), default=None),
            },
            "checks": [asdict(check) for check in self.checks],
        }

    def lines(self) -> list[str]:
        """Return what is shown on a terminal."""
        rows = [
            (k.run, k.step, k.activity or "people", k.moment, f"{k.polling_s:.1f}", f"{k.done_s:.1f}", str(k.attempts))
            for k in self.kills
        ]
        header = ("run", "step", "killed in", "moment", "worker back, s", "step done, s", "attempts")
        lines = [*_aligned(header, rows), ""]
        lines += [f"{'✓' if check.passed else '✗ FAILED'} {check.what}: {check.detail}" for check in self.checks]
        verdict = "every outcome was right" if self.passed else "NOT every outcome was right"
        return [*lines, f"{len(self.kills)} kills in {self.seconds:.0f} s: {verdict}"]


def _aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [header, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
