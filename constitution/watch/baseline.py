"""The traffic before a release: the side of the comparison that is frozen at publish.

From counts and exposures per scrape, oldest first, ending at publish. The newest hour gives the level (``n0``
events in ``t0`` exposure); everything handed in, six hours if there are, gives the dispersion
(constitution/watch/dispersion.py). Windows of releases that were rolled back are left out by the caller (exposure 0).

A baseline that is itself changing is no baseline. ``changing`` says so: the same bet as in the watch, with the
first third of the newest hour as its baseline and the rest as its watch, tolerating 25 % and erring once in a
thousand. It looks at the end only: a burst that is over is history, one that goes on at publish is a fire that is
already burning.

Pure: no clock, no I/O.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from constitution.watch.bet import Direction, log_bet, log_sum_exp, pay_for_dispersion
from constitution.watch.dispersion import Dispersion, long_run_fano

Measure = Literal["rate", "share"]

LEVEL_SECONDS = 3600.0  # the level is today's: older traffic tells about noise, not about level
SHORTEST_SCRAPE_SECONDS = 0.1  # nobody scrapes more often; half a day of history is 432,000 intervals then
MIN_SCRAPES = 12  # below it neither level nor noise is known: "no baseline"
CHANGING_TOLERANCE = 1.25
CHANGING_ALPHA = 0.001
CHANGING_STARTS = 12


@dataclass(frozen=True, slots=True)
class Baseline:
    """The frozen side of the comparison.

    Attributes:
        n0: events in the level window.
        t0: their exposure, in seconds (``rate``) or evaluations (``share``).
        phi: long-run Fano factor, at least 1.
        nu: degrees of freedom of ``phi``.
        scrapes: intervals of the level window that had data.
        seconds: wall time of those intervals.
        trend_per_hour: linear trend over everything handed in (0.1 = +10 %/h).
        changing: whether the level was itself rising (``up``) or falling (``down``) when it ended.
        measure: what an exposure is.
    """

    n0: float
    t0: float
    phi: float
    nu: float
    scrapes: int
    seconds: float
    trend_per_hour: float = 0.0
    changing: Direction | None = None
    measure: Measure = "rate"

    @classmethod
    def of(
        cls,
        counts: Sequence[float],
        exposures: Sequence[float],
        *,
        scrape_interval_s: float,
        measure: Measure = "rate",
        level_s: float = LEVEL_SECONDS,
    ) -> "Baseline":
        """Measure a baseline.

        Args:
            counts: events per scrape interval, oldest first, the last one ending at publish.
            exposures: seconds or evaluations of each interval. For ``rate``, 0 means an interval not observed,
                and more than the interval means that it closes a gap; for ``share``, 0 means no evaluations.
            scrape_interval_s: seconds per interval.
            measure: what an exposure is.
            level_s: how much of the end gives the level; all of it gives the dispersion.

        Returns:
            The baseline; an empty one (``known`` is false) where there is no data.

        Raises:
            ValueError: lengths differ, or a number is negative or not finite.
        """
        if len(counts) != len(exposures):
            raise ValueError(f"{len(counts)} counts but {len(exposures)} exposures")
        if any(not math.isfinite(v) or v < 0 for v in (*counts, *exposures)):
            raise ValueError("counts and exposures must be finite and not negative")
        noise = long_run_fano(counts, exposures, scrape_interval_s)
        newest = max(1, round(level_s / scrape_interval_s))
        level = list(zip(counts[-newest:], exposures[-newest:], strict=True))
        used = [(c, x) for c, x in level if x > 0]
        seconds = sum(x for _, x in used) if measure == "rate" else len(level) * scrape_interval_s
        return cls(
            n0=float(sum(c for c, _ in used)),
            t0=float(sum(x for _, x in used)),
            phi=noise.phi,
            nu=noise.nu,
            scrapes=len(used),
            seconds=float(seconds),
            trend_per_hour=noise.trend_per_hour,
            changing=_changing(level, scrape_interval_s, noise if len(counts) > 2 * newest else None),
            measure=measure,
        )

    @property
    def known(self) -> bool:
        """Whether there is enough of it to compare with."""
        return self.scrapes >= MIN_SCRAPES and self.t0 > 0

    @property
    def rate(self) -> float:
        """Events per unit of exposure; 0 where there was no exposure."""
        return self.n0 / self.t0 if self.t0 > 0 else 0.0

    @property
    def exposure_per_second(self) -> float:
        """1 for ``rate`` without gaps; evaluations per second for ``share``."""
        return self.t0 / self.seconds if self.seconds > 0 else 0.0


def _changing(
    level: Sequence[tuple[float, float]], scrape_interval_s: float, noise: Dispersion | None
) -> Direction | None:
    """Which way the level was moving when it ended, if that is beyond chance.

    ``noise`` is the dispersion of a long history; without one it is learnt from the first third.
    """
    third = len(level) // 3
    first, rest = level[:third], level[third:]
    t0 = sum(x for _, x in first)
    if third < MIN_SCRAPES // 2 or t0 <= 0:
        return None
    n0 = sum(c for c, _ in first)
    if noise is None:
        noise = long_run_fano([c for c, _ in first], [x for _, x in first], scrape_interval_s)
    limit = math.log(2.0 / CHANGING_ALPHA)
    starts = sorted({i * len(rest) // CHANGING_STARTS for i in range(CHANGING_STARTS)})
    directions: tuple[tuple[Direction, float], ...] = (
        ("up", CHANGING_TOLERANCE),
        ("down", 1.0 / CHANGING_TOLERANCE),
    )
    for direction, rho in directions:
        logs = []
        for start in starts:
            m = sum(c for c, _ in rest[start:])
            u = sum(x for _, x in rest[start:])
            logs.append(log_bet(direction, rho=rho, n0=n0, t0=t0, m=m, u=u, phi=noise.phi))
        if pay_for_dispersion(log_sum_exp(logs) - math.log(len(logs)), noise.nu) >= limit:
            return direction
    return None
