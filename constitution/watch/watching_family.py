"""Several quantities watched together, from samples to one verdict, within one budget of false alarms.

constitution/watch/watching.py for each of them, constitution/watch/spike_family.py for all.
One quantity alone (weight 1) decides exactly as ``QuantityWatch`` does.

A quantity that is not ``required`` can raise the alarm like any other; its silence is asked for nothing. So a
counter that stands still for weeks (errors) may be watched without making every ``ok`` impossible.

Pure: no clock, no I/O.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from constitution.release import Verdict
from constitution.watch.baseline import Measure
from constitution.watch.spike import Reading, SpikeParameters
from constitution.watch.spike_family import FamilyReading, SpikeFamily
from constitution.watch.watching import Matrix, QuantityWatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """How one quantity is judged.

    Attributes:
        measure: what its events are compared with.
        weight: its share of the budget; all shares sum to 1.
        parameters: of its test; ``alpha`` is the whole family's.
        required: without evidence about it there is no ``ok``.
    """

    measure: Measure
    weight: float
    parameters: SpikeParameters
    required: bool = True


class FamilyWatch:
    """A watch over several quantities. Not thread-safe. Build it with :meth:`begin`."""

    def __init__(self, watches: Mapping[str, QuantityWatch], watched: Mapping[str, Watched], alpha: float) -> None:
        self.watches = dict(watches)
        self.watched = dict(watched)
        self.alpha = alpha
        self.family = SpikeFamily(
            {name: watch.test for name, watch in watches.items()},
            {name: plan.weight for name, plan in watched.items()},
            math.log(1.0 / alpha),
        )
        self.decided_s: float | None = None
        """Unix seconds of the alarm."""

    @classmethod
    def begin(
        cls,
        matrices: Mapping[str, Matrix],
        watched: Mapping[str, Watched],
        *,
        publish_s: float,
        level_s: float = 3600.0,
        left_out: Sequence[tuple[float, float]] = (),
    ) -> "FamilyWatch":
        """Freeze the baselines.

        Args:
            matrices: raw samples of each quantity, already shaped (constitution/watch/quantities.py).
            watched: how each is judged; at least one.
            publish_s: unix seconds of publish.
            level_s: how much of the end of the baselines gives the level.
            left_out: windows in unix seconds that belong to no baseline.

        Raises:
            ValueError: no quantity, or weights that are no budget.
            InvalidSeriesError: a matrix is malformed.
        """
        if not watched or abs(sum(plan.weight for plan in watched.values()) - 1.0) > 1e-9:
            raise ValueError("the weights of the watched quantities must sum to 1")
        alpha = min(plan.parameters.alpha for plan in watched.values())
        watches = {
            name: QuantityWatch.begin(
                matrices[name],
                publish_s=publish_s,
                parameters=plan.parameters.model_copy(update={"alpha": alpha * plan.weight}),
                measure=plan.measure,
                level_s=level_s,
                left_out=left_out,
            )
            for name, plan in watched.items()
        }
        return cls(watches, watched, alpha)

    @property
    def origin_s(self) -> float:
        """The grid's edge nearest to publish."""
        return min(watch.origin_s for watch in self.watches.values())

    @property
    def limit(self) -> float:
        """The log e-value of the family that means ``anomaly``."""
        return math.log(1.0 / self.alpha)

    @property
    def alarmed(self) -> bool:
        """Whether the alarm was raised; it stays raised."""
        return self.decided_s is not None

    def extend(self, seconds: float) -> None:
        """Make the watch longer; valid at any time."""
        for watch in self.watches.values():
            watch.test.extend(seconds)

    def feed(self, matrices: Mapping[str, Matrix]) -> None:
        """Add samples of each quantity; those that were given before are ignored.

        Raises:
            InvalidSeriesError: a matrix is malformed.
        """
        for name, matrix in matrices.items():
            self.watches[name].feed(matrix)

    def advance(self, now_s: float) -> float:
        """Judge what ended by ``now_s``; return the family's highest log e-value so far."""
        for watch in self.watches.values():
            watch.judge(now_s)
        max_log_e = self.family.update()
        if self.decided_s is None and self.family.alarmed:
            own = [watch.decided_at(watch.test.reading()) for watch in self.watches.values() if watch.test.anomalous]
            self.decided_s = min((moment for moment in own if moment is not None), default=now_s)
        return max_log_e

    def look(self) -> FamilyReading:
        """What is known now."""
        return self.family.look()

    def finish(self) -> FamilyReading:
        """The verdict at the end of the watch."""
        advisory = frozenset(name for name, plan in self.watched.items() if not plan.required)
        return self.family.finish(advisory=advisory)

    def leading(self, reading: FamilyReading) -> tuple[str, Reading]:
        """The quantity that says most: the one that raised the alarm, the one that lacks, or the most suspicious."""
        readings = reading.readings
        if reading.verdict in {Verdict.NO_DATA, Verdict.CANNOT_TELL}:
            lacking = [n for n, r in readings.items() if r.verdict is reading.verdict and self.watched[n].required]
            if lacking:
                return lacking[0], readings[lacking[0]]
        name = max(readings, key=lambda n: readings[n].max_log_e + math.log(self.watched[n].weight))
        return name, readings[name]
