"""Several watched quantities under one budget of false alarms: deny share, severities, errors, latency, all at once.

Each quantity has a weight; the weights sum to 1. The family's e-value is the weighted average of theirs, which is an
e-value whatever their dependence, so ``P(alarm ever | nothing changed) <= alpha`` for the family as a whole: no
quantity costs another its guarantee, and nobody has to correct for having looked at many. Each quantity is tested at
``alpha * weight``, at which its own alarm implies the family's; the average also finds changes that are spread thinly.

Source: Vovk & Wang, "E-values: calibration, combination and applications", Annals of Statistics 2021 (1912.06116).

Pure: no clock, no I/O.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from constitution.release import Verdict
from constitution.watch.baseline import Baseline
from constitution.watch.spike import Reading, SpikeParameters, SpikeTest, combine, unchanged


@dataclass(frozen=True, slots=True)
class FamilyReading:
    """What the family says.

    Attributes:
        verdict: None while the watch goes on without an alarm.
        reason: which quantity, and why.
        log_e: natural log of the weighted average now.
        max_log_e: its highest value so far.
        readings: of each quantity, each at its share of alpha.
    """

    verdict: Verdict | None
    reason: str
    log_e: float
    max_log_e: float
    readings: dict[str, Reading]


class SpikeFamily:
    """Tests of several quantities with one alpha. Feed each of :attr:`tests`, then call :meth:`look`."""

    def __init__(self, tests: Mapping[str, SpikeTest], weights: Mapping[str, float], limit: float) -> None:
        self.tests = dict(tests)
        self._weights = dict(weights)
        self._limit = limit
        self._log_e = 0.0
        self._max_log_e = 0.0

    @classmethod
    def start(
        cls,
        baselines: Mapping[str, Baseline],
        weights: Mapping[str, float],
        parameters: SpikeParameters,
        own: Mapping[str, SpikeParameters] | None = None,
    ) -> "SpikeFamily":
        """A family at the moment of publish.

        Args:
            baselines: of each quantity.
            weights: of each quantity, positive, summing to 1.
            parameters: of all; alpha is the family's.
            own: other parameters for some quantities (their alpha is ignored).

        Raises:
            ValueError: the weights are no budget, or are for other quantities.
        """
        if set(baselines) != set(weights) or not weights:
            raise ValueError("each quantity needs a baseline and a weight")
        if any(w <= 0 for w in weights.values()) or abs(sum(weights.values()) - 1.0) > 1e-9:
            raise ValueError("weights must be positive and must sum to 1")
        tests = {
            name: SpikeTest.start(
                baseline,
                (own or {}).get(name, parameters).model_copy(update={"alpha": parameters.alpha * weights[name]}),
            )
            for name, baseline in baselines.items()
        }
        return cls(tests, weights, parameters.limit)

    def update(self) -> float:
        """Combine what the tests know now, without reading them out; return the highest log e-value so far."""
        names = list(self.tests)
        self._log_e = combine([self.tests[n].log_e for n in names], [self._weights[n] for n in names])
        self._max_log_e = max(self._max_log_e, self._log_e)
        return self._max_log_e

    @property
    def alarmed(self) -> bool:
        """Whether the family's alarm was raised; it stays raised."""
        return self._alarmed()

    def look(self) -> FamilyReading:
        """Combine what the tests know now. May be called after any scrape, at any time."""
        self.update()
        readings = {name: test.reading() for name, test in self.tests.items()}
        verdict = Verdict.ANOMALY if self._alarmed() else None
        return self._read(verdict, self._leading(readings) if verdict else "watching", readings)

    def finish(self, elapsed_s: float | None = None, advisory: Collection[str] = ()) -> FamilyReading:
        """The verdict at the end: ``ok`` only if every quantity is; else the first one's that is not.

        ``advisory`` quantities can raise the alarm, but nothing is asked of them for an ``ok``.
        """
        look = self.look()
        if look.verdict is not None:
            return look
        readings = {name: test.finish(elapsed_s) for name, test in self.tests.items()}
        for verdict in (Verdict.NO_DATA, Verdict.CANNOT_TELL):
            for name, reading in readings.items():
                if reading.verdict is verdict and name not in advisory:
                    return self._read(verdict, f"{name}: {reading.reason}", readings)
        return self._read(Verdict.OK, self._unchanged(readings), readings)

    def state(self) -> dict[str, Any]:
        """Everything, as JSON values; under 100 numbers a quantity."""
        return {
            "tests": {name: test.state() for name, test in self.tests.items()},
            "weights": self._weights,
            "limit": self._limit,
            "log_e": self._log_e,
            "max_log_e": self._max_log_e,
        }

    @classmethod
    def resume(cls, state: Mapping[str, Any]) -> "SpikeFamily":
        """The family that :meth:`state` described."""
        tests = {name: SpikeTest.resume(test) for name, test in state["tests"].items()}
        family = cls(tests, {n: float(w) for n, w in state["weights"].items()}, float(state["limit"]))
        family._log_e, family._max_log_e = float(state["log_e"]), float(state["max_log_e"])
        return family

    def _alarmed(self) -> bool:
        return self._max_log_e >= self._limit or any(test.anomalous for test in self.tests.values())

    def _unchanged(self, readings: Mapping[str, Reading]) -> str:
        """Name exactly what would have shown a change, and what was watched but might not have."""
        named = {name: f"{name} ({test.baseline.measure})" for name, test in self.tests.items()}
        sure = [name for name, reading in readings.items() if reading.verdict is Verdict.OK]
        only = " only" if len(readings) == 1 else ""
        sentences = []
        if sure:
            seen = unchanged([self.tests[name].parameters for name in sure])
            sentences.append(f"watched: {' and '.join(named[name] for name in sure)}{only}: {seen}")
        sentences += [
            f"{named[name]} raised no alarm, but might have missed a change ({reading.reason})"
            for name, reading in readings.items()
            if name not in sure
        ]
        return "; ".join(sentences)

    def _leading(self, readings: Mapping[str, Reading]) -> str:
        name = max(readings, key=lambda n: readings[n].max_log_e)
        reading = readings[name]
        change = "from none" if reading.ratio is None else f"by the factor {reading.ratio:.3g}"
        return f"{name} changed {change}"

    def _read(self, verdict: Verdict | None, reason: str, readings: dict[str, Reading]) -> FamilyReading:
        return FamilyReading(verdict, reason, self._log_e, self._max_log_e, readings)
