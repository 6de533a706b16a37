"""What is simulated: one cell is one kind of stream, one rate, one change, one baseline."""

from dataclasses import dataclass, field
from typing import Literal

from bench.watch.streams import Change, Noise, trace
from constitution.bet import Direction

RATES = (0.5, 5.0, 50.0, 500.0)
RATIOS = (1.2, 1.5, 2.0, 5.0)
NULLS: tuple[Noise, ...] = ("poisson", "nb1.5", "nb3", "ar", "slow ar", "drift")
HOUR, HALF_HOUR, SIX_HOURS = 720, 360, 4320
Group = Literal["null", "boundary", "delay", "late", "down", "hard", "share", "demo"]


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        group: the table it belongs to.
        noise: kind of stream.
        per_second: events per second before the change (``share``: refused ones).
        change: what the release does.
        before: scrapes of baseline; more than an hour's is history for the dispersion only.
        after: scrapes of watch.
        interval_s: scrape interval.
        direction: the watched direction of the column "ours".
        allowed_per_second: for ``share``: evaluations that are allowed, under the same noise; 0: a rate is watched.
        rivals: whether the rivals run, too.
    """

    group: Group
    noise: Noise
    per_second: float
    change: Change = field(default_factory=Change)
    before: int = HOUR
    after: int = 360
    interval_s: float = 5.0
    direction: Direction = "up"
    allowed_per_second: float = 0.0
    rivals: bool = False

    @property
    def key(self) -> str:
        """Name of its result file; its random streams depend on it alone."""
        parts: list[object] = [self.group, self.noise.replace(" ", "-"), f"{self.per_second:g}"]
        parts += [f"x{self.change.ratio:g}", f"b{self.before}", f"w{self.after}", self.direction]
        parts += [f"at{self.change.at_s:g}"] if self.change.at_s else []
        parts += [f"ramp{self.change.ramp_s:g}"] if self.change.ramp_s else []
        parts += [f"part{self.change.share:g}"] if self.change.share != 1 else []
        parts += [f"share{self.allowed_per_second:g}"] if self.allowed_per_second else []
        parts += [trace()[1]] if self.noise == "demo trace" else []
        parts += [f"i{self.interval_s:g}"] if self.interval_s != 5 else []
        return "_".join(str(part) for part in parts)


def cells() -> list[Cell]:
    """Every cell of the report."""
    found = [
        Cell("null", noise, rate, before=before, rivals=before == HOUR)
        for before in (HOUR, HALF_HOUR)
        for noise in NULLS
        for rate in RATES
    ]
    found += [
        Cell("boundary", noise, rate, Change(1.1), before=before)
        for before in (HOUR, HALF_HOUR)
        for noise in NULLS[:5]
        for rate in RATES
    ]
    found += [Cell("boundary", noise, rate, Change(1.1), SIX_HOURS) for noise in ("ar", "slow ar") for rate in RATES]
    found += [
        Cell("delay", noise, rate, Change(ratio), before=before, rivals=before == HOUR and ratio in {1.5, 2.0})
        for before in (HOUR, HALF_HOUR)
        for noise in ("poisson", "nb3", "ar")
        for rate in RATES
        for ratio in RATIOS
    ]
    late = Change(1.5, at_s=652.5), Change(2.0, at_s=652.5)
    found += [
        Cell("late", "poisson", 5.0, late[0]),
        Cell("late", "poisson", 500.0, late[0]),
        Cell("late", "nb3", 5.0, late[0]),
        Cell("late", "poisson", 0.5, late[1]),
        Cell("late", "ar", 50.0, late[1]),
    ]
    found += [
        Cell("down", noise, rate, Change(1 / 1.1), direction="down")
        for noise in ("poisson", "nb3", "ar")
        for rate in RATES
    ]
    found += [Cell("down", "poisson", rate, Change(ratio), direction="down") for rate in RATES for ratio in (0.5, 0.0)]
    found += [
        Cell("hard", "burst before", 5.0, rivals=True),
        Cell("hard", "burst after", 5.0, rivals=True),
        Cell("hard", "season", 5.0, rivals=True),
        Cell("hard", "season", 50.0, rivals=True),
        Cell("hard", "poisson", 5.0, Change(2.0, ramp_s=600.0), rivals=True),
        Cell("hard", "ar", 50.0, Change(2.0, ramp_s=600.0), rivals=True),
        Cell("hard", "poisson", 5.0, Change(3.0, share=0.25), rivals=True),
        Cell("hard", "ar", 50.0, Change(3.0, share=0.25), rivals=True),
    ]
    found += [
        Cell("share", noise, 5.0, Change(ratio), allowed_per_second=45.0)
        for noise in ("poisson", "ar", "slow ar", "drift", "season")
        for ratio in (1.0, 1.1, 1.5, 2.0)
    ]
    found += [
        Cell("demo", "poisson", rate, Change(ratio), before, 20, 1.0, allowed_per_second=9 * rate)
        for before in (30, 60)
        for rate in (2.0, 5.0, 20.0)
        for ratio in (1.0, 3.0)
    ]
    recorded = round(float(trace()[0].mean()), 1)
    found += [Cell("demo", "demo trace", recorded, Change(ratio), 120, 60, 1.0) for ratio in (1.0, 2.0, 3.0)]
    return found
