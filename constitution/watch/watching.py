"""One watch from samples to verdict: the same code for the live watch, the backtest and the benches.

``QuantityWatch.begin`` freezes the baseline and the scrape grid at publish; ``feed`` and ``advance`` take later
answers of Prometheus; ``finish`` gives the verdict. The state that must survive a crash is small (the test's, and the
grid's position); the samples are read again, and as ticks are made from samples alone, the resumed watch decides the
same.

A tick whose gap reaches back over publish mixes old and new events, and one in which much of the fleet restarted lost
too many of them: neither is evidence.

Pure: no clock, no I/O.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from constitution.release import Verdict
from constitution.watch.baseline import Baseline, Measure
from constitution.watch.counters import CounterGrid, Tick, everything, grid_origin, parse_matrix, refused
from constitution.watch.spike import Reading, SpikeParameters, SpikeTest

Matrix = Sequence[Mapping[str, Any]]

HISTORY_SECONDS = (
    12 * 3600.0
)  # of baseline, at most: enough to learn the noise, short enough for a day's curve to be smooth


class QuantityWatch:
    """A watch over one quantity. Not thread-safe.

    Args:
        grid: the scrape grid, past the baseline.
        test: the test at the same moment.
        publish_s: unix seconds of publish.
        origin_s: the grid's last edge up to publish; the watch's time counts from here.
    """

    def __init__(self, *, grid: CounterGrid, test: SpikeTest, publish_s: float, origin_s: float) -> None:
        self._grid = grid
        self.test = test
        self.publish_s = publish_s
        self.origin_s = origin_s
        self._given = 0  # ticks of the watch taken so far
        self.ticks: list[Tick] = []  # of this process, for the evidence file

    @classmethod
    def begin(
        cls,
        matrix: Matrix,
        *,
        publish_s: float,
        parameters: SpikeParameters,
        measure: Measure | None = None,
        level_s: float = 3600.0,
        left_out: Sequence[tuple[float, float]] = (),
    ) -> "QuantityWatch":
        """Freeze the baseline.

        Args:
            matrix: raw samples up to publish (later ones may be there, too): six hours if there are, twelve at most.
            publish_s: unix seconds of publish.
            parameters: of the test.
            measure: ``rate`` counts all series given, per second; ``share`` those whose ``decision`` is not
                ``allow``, per evaluation. Default: ``share`` where there are series with ``decision="allow"``,
                else ``rate``.
            level_s: how much of the end of the baseline gives the level.
            left_out: windows (from, to) in unix seconds that do not belong to the baseline, e.g. rolled-back releases.

        Raises:
            InvalidSeriesError: the matrix is malformed.
        """
        chosen = measure or measure_of(matrix)
        origin_s = grid_origin(matrix, publish_s=publish_s, interval_s=parameters.scrape_interval_s)
        grid = _grid(origin_s, parameters, chosen)
        grid.feed(matrix)
        unseen = Tick(0.0, 0.0, 0.0, 0.0)
        kept = [unseen if _inside(tick, left_out) else tick for tick in grid.ticks(origin_s)]
        baseline = Baseline.of(
            [tick.count for tick in kept],
            [tick.exposure for tick in kept],
            scrape_interval_s=parameters.scrape_interval_s,
            measure=chosen,
            level_s=level_s,
        )
        test = SpikeTest.start(baseline, parameters)
        return cls(grid=grid, test=test, publish_s=publish_s, origin_s=origin_s)

    @classmethod
    def resume(cls, state: Mapping[str, Any], matrix: Matrix) -> "QuantityWatch":
        """Go on where :meth:`state` was taken.

        Args:
            state: what :meth:`state` gave, before or after JSON.
            matrix: raw samples from before publish until now, as at the beginning.

        Raises:
            InvalidSeriesError: the matrix is malformed.
        """
        test = SpikeTest.resume(state["test"])
        origin_s, given = float(state["origin_s"]), int(state["given"])
        grid = _grid(origin_s, test.parameters, test.baseline.measure)
        grid.feed(matrix)
        grid.ticks(origin_s + given * test.parameters.scrape_interval_s)
        watch = cls(grid=grid, test=test, publish_s=float(state["publish_s"]), origin_s=origin_s)
        watch._given = given
        return watch

    def state(self) -> dict[str, Any]:
        """What :meth:`resume` needs besides the samples, as JSON values; under 110 numbers."""
        return {
            "test": self.test.state(),
            "publish_s": self.publish_s,
            "origin_s": self.origin_s,
            "given": self._given,
        }

    def feed(self, matrix: Matrix) -> None:
        """Add samples; those that were given before are ignored.

        Raises:
            InvalidSeriesError: the matrix is malformed.
        """
        self._grid.feed(matrix)

    def advance(self, now_s: float) -> Reading:
        """Judge every tick that ended by ``now_s`` and by the end of the bake; stops at an anomaly.

        Live, hand in a time half a scrape interval in the past, so that the last scrape has been stored.
        """
        self.judge(now_s)
        return self.test.reading()

    def judge(self, now_s: float) -> None:
        """The same, without reading the test out: an interval for the ratio costs more than the judgement."""
        interval_s = self.test.parameters.scrape_interval_s
        last_s = self.origin_s + round(self.test.parameters.bake_s / interval_s) * interval_s
        for tick in self._grid.ticks(min(now_s, last_s)):
            if self.test.anomalous:
                break
            index = round((tick.end_s - self.origin_s) / interval_s)
            if index < 1:
                continue
            self._given = index
            self.ticks.append(tick)
            if tick.seconds > index * interval_s + 0.5 * interval_s:
                self.test.miss(index * interval_s)
            elif tick.void:
                self.test.miss(tick.seconds)
            elif tick.seconds > 0:
                self.test.observe(tick.count, tick.exposure, tick.seconds)

    def finish(self) -> Reading:
        """The verdict at the end of the bake; call ``advance`` with the end first."""
        return self.test.finish()

    def decided_at(self, reading: Reading) -> float | None:
        """Unix seconds of a reading's decision: the end of the scrape that decided, or of the bake; or None."""
        if reading.at_s is None:
            return None
        return (self.origin_s if reading.verdict is Verdict.ANOMALY else self.publish_s) + reading.at_s


def measure_of(matrix: Matrix) -> Measure:
    """``share`` where series with ``decision="allow"`` are present, else ``rate``."""
    return "share" if any(labels.get("decision") == "allow" for labels, _ in parse_matrix(matrix)) else "rate"


def _grid(origin_s: float, parameters: SpikeParameters, measure: Measure) -> CounterGrid:
    return CounterGrid(
        origin_s=origin_s,
        interval_s=parameters.scrape_interval_s,
        measure=measure,
        counted=refused if measure == "share" else everything,
        oldest_s=origin_s - HISTORY_SECONDS,
    )


def _inside(tick: Tick, windows: Sequence[tuple[float, float]]) -> bool:
    return any(start < tick.end_s and tick.end_s - tick.seconds < end for start, end in windows)
