"""The evidence of one watch: everything that its verdict rests on, in one JSON file, stored under its checksum.

Anyone can judge again: ``samples`` are what Prometheus answered (or, where they were too many, the query that gives
them again), ``ticks`` what was made of them, ``log_e`` how the evidence grew, ``limit`` what it was held against.
"""

from datetime import datetime
from typing import Any, Literal

from pydantic import ValidationError

from constitution.checksum import Checksum
from constitution.environment import Strategy, issues_of
from constitution.errors import InvalidRequestError
from constitution.model import Model
from constitution.release import Release, Verdict
from constitution.watch.baseline import Measure
from constitution.watch.prediction import Expected
from constitution.watch.spike import SpikeParameters

Curve = tuple[tuple[float, float | None], ...]
"""(unix seconds, natural log of an e-value) per scrape."""


class QuantityEvidence(Model):
    """One quantity.

    Args:
        query: the resolved query of baseline and watch, as a person can paste it.
        parameters: of its test; ``alpha`` is its share of the budget.
        expected: the approved change that it was tested against.
        baseline: n0, t0, phi, nu and the rest of constitution/watch/baseline.py.
        ticks: (end in unix seconds, events, exposure, seconds observed, resets) per scrape since publish.
        log_e: the highest log e-value by each scrape.
        ci: confidence sequence of ``ratio``; null = unbounded.
        verdict: null while this quantity has raised no alarm and the watch ended by another's.
    """

    measure: Measure
    weight: float
    required: bool
    query: str
    parameters: SpikeParameters
    expected: Expected
    baseline: dict[str, Any]
    ticks: tuple[tuple[float, float, float, float, int], ...]
    log_e: Curve
    ratio: float | None
    ci: tuple[float | None, float | None]
    coverage: float
    verdict: Verdict | None
    reason: str


class WatchEvidence(Model):
    """The whole watch.

    Args:
        strategy: what was watched, and how; a release is confirmed by the one that its board signed, and by no other.
        test_evidence: digest of the evidence whose prediction was the expected change.
        limit: log e-value that means ``anomaly``: ``ln(1 / alpha)``.
        log_e: the family's highest log e-value by each scrape; of one quantity, that quantity's.
        leading: the quantity that says most about the verdict.
        samples: Prometheus matrix entries by metric, or why they are left out.
    """

    format: Literal[1] = 1
    environment: str
    update_id: str
    generation: int | None
    strategy: Strategy
    test_evidence: Checksum | None
    published_at: datetime
    ends_at: datetime
    alpha: float
    limit: float
    log_e: Curve
    verdict: Verdict
    reason: str
    decided_at: datetime
    leading: str
    quantities: dict[str, QuantityEvidence]
    samples: dict[str, list[dict[str, Any]] | str]

    def differences(self, release: Release) -> tuple[str, ...]:
        """Say in what this is evidence of another watch than that of a release; empty if it is of this one."""
        bound = (
            ("environment", self.environment, release.environment),
            ("update id", self.update_id, release.update_id),
            ("generation", self.generation, release.generation),
            ("time of publish", self.published_at, release.effective_at),
        )
        return tuple(f"its {name} is {found}, not {wanted}" for name, found, wanted in bound if found != wanted)

    @classmethod
    def read(cls, data: bytes) -> "WatchEvidence":
        """Read a file.

        Raises:
            InvalidRequestError: it is no watch evidence of a format known here.
        """
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise InvalidRequestError("this is no evidence of a watch", issues=issues_of(error)[:20]) from error
