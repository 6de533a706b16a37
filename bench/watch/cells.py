"""What is simulated: one cell is one kind of stream, one rate, one change, one baseline."""

from dataclasses import dataclass, field
from typing import Literal

from bench.watch.streams import Change, Noise, trace
from constitution.watch.bet import Direction

RATES = (0.5, 5.0, 50.0, 500.0)
RATIOS = (1.2, 1.5, 2.0, 5.0)
NULLS: tuple[Noise, ...] = ("poisson", "nb1.5", "nb3", "ar", "slow ar", "drift")
SLACK_NOISES: tuple[Noise, ...] = ("poisson", "nb3", "ar", "slow ar")
SHARE_NOISES: tuple[Noise, ...] = ("poisson", "ar")
SHIPPED_NOISES: tuple[Noise, ...] = ("poisson", "ar", "slow ar", "drift")
HOUR, HALF_HOUR, SIX_HOURS = 720, 360, 4320
RATE_SLACK, SHARE_SLACK = 0.05, 0.01
"""What the shipped strategies tolerate absolutely: events per second, and share of the evaluations."""
PACES = ((40, 24), (18, 8))
"""Scrapes of a second before and after publish of the development strategy, and of its fast variant."""
Group = Literal[
    "null",
    "boundary",
    "delay",
    "late",
    "down",
    "hard",
    "share",
    "demo",
    "slack",
    "slack share",
    "slack found",
    "shipped",
]


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
        slack: absolute slack of what is watched (``min_rate``).
        slack_total: for ``share``: the rate of all evaluations is watched besides, with this slack; 0: it is not.
        weight_total: the part of the budget that it gets then.
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
    slack: float = 0.0
    slack_total: float = 0.0
    weight_total: float = 0.5

    @property
    def key(self) -> str:
        """Name of its result file; its random streams depend on it alone."""
        parts: list[object] = [self.group.replace(" ", "-"), self.noise.replace(" ", "-"), f"{self.per_second:g}"]
        parts += [f"x{self.change.ratio:g}", f"b{self.before}", f"w{self.after}", self.direction]
        parts += [f"at{self.change.at_s:g}"] if self.change.at_s else []
        parts += [f"ramp{self.change.ramp_s:g}"] if self.change.ramp_s else []
        parts += [f"part{self.change.share:g}"] if self.change.share != 1 else []
        parts += [f"add{self.change.added:g}"] if self.change.added else []
        parts += [f"slack{self.slack:g}"] if self.slack else []
        parts += [f"beside{self.slack_total:g}"] if self.slack_total else []
        parts += [f"weight{self.weight_total:g}"] if self.weight_total != 0.5 else []
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
    return slack_cells() + found


def slack_cells() -> list[Cell]:
    """Slack in both directions: nothing changes, changes on the boundary of what is tolerated, changes beyond it."""
    found = []
    for change, direction in _kinds(RATE_SLACK):
        found += [
            Cell("slack", noise, rate, change, direction=direction, slack=RATE_SLACK)
            for noise in SLACK_NOISES
            for rate in (0.0, 0.02, 0.05, 0.5, 5.0)
            if rate or change.added > 0 or noise == "poisson"  # without events noise is nothing
        ]
    for change, direction in _kinds(SHARE_SLACK):
        for noise in SHARE_NOISES:
            found += [
                Cell(
                    "slack share",
                    noise,
                    rate,
                    change,
                    direction=direction,
                    slack=SHARE_SLACK,
                    allowed_per_second=50 - rate,
                )
                for rate in (0.0, 0.05, 1.0, 5.0)
            ]
    found += [
        Cell("slack found", "poisson", 0.0, Change(1.0, added=0.5), slack=RATE_SLACK),
        Cell("slack found", "poisson", 0.05, Change(1.0, added=0.5), slack=RATE_SLACK),
        Cell("slack found", "poisson", 0.5, Change(2.0), slack=RATE_SLACK),
        Cell("slack found", "poisson", 5.0, Change(1.5), slack=RATE_SLACK),
        Cell("slack found", "poisson", 0.5, Change(0.5), direction="down", slack=RATE_SLACK),
        Cell("slack found", "poisson", 0.5, Change(0.0), direction="down", slack=RATE_SLACK),
        Cell("slack found", "poisson", 5.0, Change(0.5), direction="down", slack=RATE_SLACK),
        Cell("slack found", "poisson", 0.0, Change(1.0, added=0.05), slack=SHARE_SLACK, allowed_per_second=50.0),
        Cell("slack found", "poisson", 5.0, Change(1.5), slack=SHARE_SLACK, allowed_per_second=45.0),
    ]
    found += [
        Cell("shipped", noise, rate, allowed_per_second=9 * rate, slack=SHARE_SLACK, slack_total=RATE_SLACK)
        for noise in SHIPPED_NOISES
        for rate in (0.02, 0.5, 5.0)
    ]
    found += [
        Cell(
            "shipped",
            "poisson",
            rate,
            Change(ratio),
            before,
            after,
            1.0,
            allowed_per_second=9 * rate,
            slack=SHARE_SLACK,
            slack_total=RATE_SLACK,
            weight_total=0.9,
        )
        for before, after in PACES
        for rate in (0.2, 2.0, 20.0)
        for ratio in (1.0, 3.0)
    ]
    recorded = round(float(trace()[0].mean()), 1)
    found += [
        Cell("shipped", "demo trace", recorded, Change(ratio), *pace, 1.0, slack=RATE_SLACK)
        for pace in PACES
        for ratio in (1.0, 3.0)
    ]
    return found


def _kinds(slack: float) -> tuple[tuple[Change, Direction], ...]:
    """Nulls: nothing changes (a fall is looked for: there the slack's sign was wrong), the upper and lower boundary."""
    return (
        (Change(1.0), "down"),
        (Change(1.1, added=slack), "up"),
        (Change(1 / 1.1, added=-slack), "down"),
    )
