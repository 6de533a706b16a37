"""One attempt's watch: raw samples in, judgement and trace out; and what becomes of it as evidence. No I/O."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from constitution.release import Verdict
from constitution.watch.evidence import QuantityEvidence
from constitution.watch.prediction import Expected
from constitution.watch.quantities import QUANTITIES
from constitution.watch.spike_family import FamilyReading
from constitution.watch.watching_family import FamilyWatch, Watched

Matrices = dict[str, list[dict[str, Any]]]
"""Prometheus matrix entries by metric name."""
SLACK_S = 0.01  # a timer may fire this much early, and would find the scrape not over yet


def shaped(matrices: Mapping[str, list[dict[str, Any]]], names: Mapping[str, Watched]) -> Matrices:
    """Return each quantity's own series."""
    return {name: QUANTITIES[name].shaped(matrices[QUANTITIES[name].metric]) for name in names}


class LiveWatch:
    """Samples in, trace out.

    Args:
        before: answers up to publish, by metric.
        watched: how each quantity is judged.
        published_s: unix seconds of publish.
        end_s: unix seconds of the watch's end.
        level_s: seconds of baseline that give the level.
        left_out: windows that belong to no baseline.

    Raises:
        InvalidSeriesError: an answer is no matrix.
    """

    def __init__(
        self,
        before: Mapping[str, list[dict[str, Any]]],
        watched: Mapping[str, Watched],
        *,
        published_s: float,
        end_s: float,
        level_s: float,
        left_out: list[tuple[float, float]],
    ) -> None:
        self.watched = dict(watched)
        self.watch = FamilyWatch.begin(
            shaped(before, self.watched), watched, publish_s=published_s, level_s=level_s, left_out=left_out
        )
        self.end_s = end_s
        self._step_s = next(iter(watched.values())).parameters.scrape_interval_s
        self.trace: list[tuple[float, float]] = []
        self.traces: dict[str, list[tuple[float, float | None]]] = {name: [] for name in watched}

    def advance(self, matrices: Mapping[str, list[dict[str, Any]]], now_s: float) -> None:
        """Take what Prometheus answered, and judge scrape by scrape, so that the evidence shows how it grew."""
        self.watch.feed(shaped(matrices, self.watched))
        at = (self.trace[-1][0] if self.trace else self.watch.origin_s) + self._step_s
        while at <= now_s and at <= self.end_s + self._step_s and not self.watch.alarmed:
            self.trace.append((at, self.watch.advance(at)))
            for name, one in self.watch.watches.items():
                self.traces[name].append((at, finite(one.test.log_e)))
            at += self._step_s

    def due_s(self) -> float:
        """Return the unix seconds at which the next scrape can be judged, half a scrape after its end; or infinity."""
        at = (self.trace[-1][0] if self.trace else self.watch.origin_s) + self._step_s
        return at + 0.5 * self._step_s + SLACK_S if at <= self.end_s + self._step_s else math.inf

    def closing(self) -> FamilyReading:
        """The alarm, or the verdict at the end."""
        return self.watch.look() if self.watch.alarmed else self.watch.finish()

    def samples(self) -> int:
        """Scrapes that were observed, of the quantity that has most."""
        return max(len([t for t in one.ticks if t.seconds > 0]) for one in self.watch.watches.values())

    def reason(self, reading: FamilyReading) -> str:
        """Why, in words; of several quantities, which one."""
        name, leading = self.watch.leading(reading)
        if reading.verdict is Verdict.OK:
            return reading.reason
        if leading.verdict is None:  # the average raised the alarm, none of them alone
            return reading.reason
        return leading.reason if len(self.watched) == 1 else f"{name}: {leading.reason}"

    def quantities(
        self, reading: FamilyReading, queries: Mapping[str, str], expected: Mapping[str, Expected]
    ) -> dict[str, QuantityEvidence]:
        """Return the evidence of each quantity."""
        found = {}
        for name, one in self.watch.watches.items():
            quantity_reading = reading.readings[name]
            plan = self.watched[name]
            found[name] = QuantityEvidence(
                measure=plan.measure,
                weight=plan.weight,
                required=plan.required,
                query=queries[name],
                parameters=one.test.parameters,
                expected=expected.get(name, Expected()) if plan.measure == "share" else Expected(),
                baseline={key: finite(value) for key, value in asdict(one.test.baseline).items()},
                ticks=tuple((t.end_s, t.count, t.exposure, t.seconds, t.resets) for t in one.ticks),
                log_e=tuple(self.traces[name]),
                ratio=quantity_reading.ratio,
                ci=(finite(quantity_reading.ci[0]), finite(quantity_reading.ci[1])),
                coverage=quantity_reading.coverage,
                verdict=quantity_reading.verdict,
                reason=quantity_reading.reason,
            )
        return found

    def progress(self, now: datetime, trouble: str | None) -> dict[str, Any]:
        """The details of a heartbeat."""
        reading = self.watch.look()
        name, leading = self.watch.leading(reading)
        return {
            "left_s": max(0, round(self.end_s - now.timestamp())),
            "ticks": max(len(one.ticks) for one in self.watch.watches.values()),
            "quantity": name,
            "ratio": leading.ratio,
            "log_e": finite(reading.max_log_e),
            "limit": self.watch.limit,
            "trouble": trouble,
        }

    def decided_at(self, reading: FamilyReading, end: datetime) -> datetime:
        """When the verdict fell: the scrape that decided, or the end."""
        if reading.verdict is Verdict.ANOMALY and self.watch.decided_s is not None:
            return datetime.fromtimestamp(self.watch.decided_s, UTC)
        return end


def finite(value: Any) -> Any:
    """Return a number that JSON can carry, or None."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
