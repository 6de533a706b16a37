r"""The expected change: what a candidate would do to the watched shares, judged from recorded requests.

Each policy engine replays its recorded requests through the current document and the candidate and tells counts
only. The same ``n`` requests pass both, so the counts are paired. With

* ``both``: counted (e.g. refused) by both documents,
* ``b = candidate - both``: newly counted, ``c = current - both``: no longer counted,

and ``p0 = current / n``, ``pb = b / n``, ``pc = c / n`` the predicted ratio of the share is::

    ratio = candidate / current = 1 + (pb - pc) / p0

**Uncertainty.** ``pb``, ``pc`` and ``p0`` each get an exact Clopper-Pearson interval at level ``1 - alpha/3``
(constitution/watch/binomial.py); by the union bound all three hold together with at least ``1 - alpha``, so do::

    d_high = U(pb) - L(pc)        ratio <= 1 + d_high / (L(p0) if d_high >= 0 else U(p0))
    d_low  = L(pb) - U(pc)        ratio >= 1 + d_low  / (L(p0) if d_low < 0 else U(p0))

Exact for recorded requests that are a uniform sample of the traffic to come; that today's traffic resembles the last
day's is an assumption, and the approver sees how many requests it rests on.

**Whether a shift is expected at all** is a question of its own: the exact sign test of ``b`` against ``c`` at
``alpha``. Without it, the mere width of the interval would loosen the watch of every release that changes nothing.

**What the watch does with it.** A predicted rise tolerates a rise up to ``ratio_high`` (``expected_up`` of
SpikeParameters), a predicted fall a fall down to ``ratio_low``. Where nothing was counted before, there is no ratio:
then ``d_high`` is added as absolute slack. Under ``MIN_REQUESTS`` nothing is expected, and the prediction says so.

**Never applied to a rate.** A replay asks each request once: it predicts what one evaluation is decided, never how
often agents will ask. Its word about the number of evaluations is 1, always. So refusals that make agents ask again
show in the rate, whatever was predicted and approved (docs/watch.md, Expected change).

Pure: no clock, no I/O.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field

from constitution.checksum import Checksum
from constitution.listing import NAMED, first_names, named
from constitution.model import Model
from constitution.policy.evaluation import Decision, EvaluationRequest, PolicyDecision
from constitution.policy.rules import Policy
from constitution.watch.binomial import clopper_pearson, sign_test
from constitution.watch.quantities import SEVERE

ALPHA = 0.01
MIN_REQUESTS = 200
"""Below it an interval for a share is wider than the changes that are looked for (0 of 200 allows up to 3.2 %)."""
MAX_RATIO = 1e6  # of SpikeParameters

PredictedName = Literal["deny_share", "severe_share"]
PREDICTED: tuple[PredictedName, ...] = ("deny_share", "severe_share")

Count = Annotated[int, Field(ge=0)]


class PairCounts(Model):
    """How many requests are counted by the current document, by the candidate, and by both."""

    current: Count = 0
    candidate: Count = 0
    both: Count = 0


class ReplayCounts(Model):
    """What one engine tells of its recorded requests: counts, nothing else.

    Args:
        requests: how many were replayed.
        span_s: seconds from the oldest of them to now.
        current: requests by decision of the current document.
        candidate: the same of the candidate.
        errors_current: requests that met a CEL error under the current document.
        errors_candidate: the same under the candidate.
        quantities: paired counts.
    """

    requests: Count
    span_s: Annotated[float, Field(ge=0)]
    current: dict[Decision, Count]
    candidate: dict[Decision, Count]
    errors_current: Count = 0
    errors_candidate: Count = 0
    quantities: dict[PredictedName, PairCounts]


class PredictedShare(Model):
    """One predicted quantity. ``ratio`` is null where nothing was counted before, ``ratio_high`` where unbounded.

    ``added_high`` bounds the share that is newly counted beyond what no longer is.
    """

    counts: PairCounts
    shift: Literal["rise", "fall", "none"]
    ratio: float | None
    ratio_low: float
    ratio_high: float | None
    added_high: float


class Prediction(Model):
    """The expected change of one release, as the board sees and signs it (in the evidence).

    ``engines`` are those whose counts are in it, ``silent`` the others with the reason; of each the first are named,
    and ``more_…`` counts the rest. With ``enough`` false ``quantities`` is empty, and the watch tests against no shift.
    """

    requests: Count
    span_s: float
    engines: tuple[str, ...]
    silent: tuple[str, ...] = ()
    more_engines: Count = 0
    more_silent: Count = 0
    enough: bool
    note: str
    alpha: float = ALPHA
    current: dict[Decision, Count]
    candidate: dict[Decision, Count]
    errors_current: Count = 0
    errors_candidate: Count = 0
    quantities: dict[PredictedName, PredictedShare] = Field(default_factory=dict)

    def expected(self, name: str) -> "Expected":
        """The change that the watch of a quantity must tolerate; none for a quantity that a replay does not predict."""
        found = next((share for key, share in self.quantities.items() if key == name), None)
        if found is None or not self.enough or found.shift == "none":
            return Expected()
        if found.shift == "fall":
            return Expected(down=max(1e-6, min(1.0, found.ratio_low)))
        if found.ratio_high is None:
            return Expected(added=found.added_high)
        return Expected(up=min(MAX_RATIO, max(1.0, found.ratio_high)))

    def lines(self) -> list[str]:
        """What the approver reads."""
        lines = [f"{self.note}; asked: {named(self.engines, self.more_engines) or 'no engine'}"]
        lines += [f"no word from {reason}" for reason in self.silent]
        if self.more_silent:
            lines.append(f"no word from {self.more_silent:,} more engines")
        if self.requests:
            lines.append("decisions now:     " + _decisions(self.current))
            lines.append("with the candidate: " + _decisions(self.candidate))
        if self.errors_candidate > self.errors_current:
            lines.append(f"CEL errors in {self.errors_candidate} requests, now in {self.errors_current}")
        lines += [_share_line(name, share, self.requests) for name, share in self.quantities.items()]
        return lines


class Expected(Model):
    """What a watch tolerates besides its own tolerance: ratios, and for nothing before an absolute share."""

    up: Annotated[float, Field(ge=1)] = 1.0
    down: Annotated[float, Field(gt=0, le=1)] = 1.0
    added: Annotated[float, Field(ge=0)] = 0.0


def replay(requests: Iterable[EvaluationRequest], *, current: Policy, candidate: Policy, span_s: float) -> ReplayCounts:
    """Decide each request by both documents and count; nothing of a request is kept."""
    decided: tuple[dict[Decision, int], dict[Decision, int]] = (dict.fromkeys(Decision, 0), dict.fromkeys(Decision, 0))
    errors = [0, 0]
    pairs: dict[PredictedName, list[int]] = {name: [0, 0, 0] for name in PREDICTED}
    number = 0
    for request in requests:
        number += 1
        answers = (current.evaluate(request), candidate.evaluate(request))
        for side, answer in enumerate(answers):
            decided[side][answer.decision] += 1
            errors[side] += answer.errors > 0
        for name, counts in pairs.items():
            before, after = (_counted(name, answer) for answer in answers)
            counts[0] += before
            counts[1] += after
            counts[2] += before and after
    return ReplayCounts(
        requests=number,
        span_s=span_s,
        current=decided[0],
        candidate=decided[1],
        errors_current=errors[0],
        errors_candidate=errors[1],
        quantities={name: PairCounts(current=c[0], candidate=c[1], both=c[2]) for name, c in pairs.items()},
    )


def predict(
    counts: Mapping[str, ReplayCounts], *, silent: Sequence[str] = (), alpha: float = ALPHA, least: int = MIN_REQUESTS
) -> Prediction:
    """Sum what the engines told and say what is to be expected.

    Args:
        counts: by engine.
        silent: engines that told nothing, each with its reason.
        alpha: probability that some bound of one quantity does not hold.
        least: requests below which nothing is expected.
    """
    total = sum(c.requests for c in counts.values())
    span_s = max((c.span_s for c in counts.values() if c.requests), default=0.0)
    enough = total >= least
    # An engine answers and records any caller: agents hold no keys here. The signers must know that anybody can be one.
    note = f"{total} recorded requests of the last {_hours(span_s)} were replayed, of everybody who reaches an engine"
    if not enough:
        note = f"not predicted: {total} recorded requests, {least} are needed; the watch tests against no shift"
    quantities = {name: _sum(c.quantities.get(name, PairCounts()) for c in counts.values()) for name in PREDICTED}
    return Prediction(
        requests=total,
        span_s=span_s,
        engines=first_names(counts),
        silent=tuple(silent[:NAMED]),
        more_engines=max(len(counts) - NAMED, 0),
        more_silent=max(len(silent) - NAMED, 0),
        enough=enough,
        note=note,
        alpha=alpha,
        current=_by_decision(c.current for c in counts.values()),
        candidate=_by_decision(c.candidate for c in counts.values()),
        errors_current=sum(c.errors_current for c in counts.values()),
        errors_candidate=sum(c.errors_candidate for c in counts.values()),
        quantities={name: predict_share(pair, total, alpha) for name, pair in quantities.items()} if enough else {},
    )


def predict_share(counts: PairCounts, requests: int, alpha: float = ALPHA) -> PredictedShare:
    """The predicted ratio of one share and its bounds; the formulas are in the module's head.

    Raises:
        ValueError: the counts contradict each other.
    """
    newly, no_longer = counts.candidate - counts.both, counts.current - counts.both
    if newly < 0 or no_longer < 0 or counts.candidate + no_longer > requests:
        raise ValueError(f"counts that cannot be: {counts}, of {requests} requests")
    b_low, b_high = clopper_pearson(newly, requests, alpha / 3)
    c_low, c_high = clopper_pearson(no_longer, requests, alpha / 3)
    p_low, p_high = clopper_pearson(counts.current, requests, alpha / 3)
    high, low = b_high - c_low, b_low - c_high
    changed = sign_test(newly, no_longer) <= alpha
    below = p_low if low < 0 else p_high
    above = p_low if high >= 0 else p_high
    return PredictedShare(
        counts=counts,
        shift="none" if not changed else "rise" if newly > no_longer else "fall",
        ratio=counts.candidate / counts.current if counts.current else None,
        ratio_low=max(0.0, 1.0 + low / below) if below > 0 else 0.0,
        ratio_high=1.0 + high / above if above > 0 else None,
        added_high=max(0.0, high),
    )


def _counted(name: PredictedName, decision: PolicyDecision) -> bool:
    if name == "deny_share":
        return decision.decision is not Decision.ALLOW
    return decision.severity in SEVERE


def _sum(pairs: Iterable[PairCounts]) -> PairCounts:
    listed = list(pairs)
    return PairCounts(
        current=sum(p.current for p in listed),
        candidate=sum(p.candidate for p in listed),
        both=sum(p.both for p in listed),
    )


def _by_decision(counts: Iterable[Mapping[Decision, int]]) -> dict[Decision, int]:
    listed = list(counts)
    return {decision: sum(c.get(decision, 0) for c in listed) for decision in Decision}


def _decisions(counts: Mapping[Decision, int]) -> str:
    total = sum(counts.values()) or 1
    return ", ".join(f"{decision.value} {number} ({number / total:.1%})" for decision, number in counts.items())


def _share_line(name: str, share: PredictedShare, requests: int) -> str:
    before, after = share.counts.current / requests, share.counts.candidate / requests
    high = "unbounded" if share.ratio_high is None else f"{share.ratio_high:.3g}"
    ratio = "from none" if share.ratio is None else f"ratio {share.ratio:.3g} ({share.ratio_low:.3g} to {high})"
    tolerated = {"rise": "a rise up to that is expected", "fall": "a fall down to that is expected"}.get(
        share.shift, "no shift is expected"
    )
    return f"{name}: {before:.1%} now, {after:.1%} with the candidate, {ratio}: {tolerated}"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"


class PredictRequest(Model):
    """Body of ``POST /v1/policy/predict``."""

    checksum: Checksum


class PredictAnswer(Model):
    """Answer of ``POST /v1/policy/predict``: by which documents was replayed, and the counts."""

    target: str
    current: Checksum
    candidate: Checksum
    counts: ReplayCounts
