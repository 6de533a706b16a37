"""The quantities of a watch: which counter each is read from, and how its series become counted events.

======================  ======================================================  =======
quantity                counted                                                 measure
======================  ======================================================  =======
``evaluations``         every evaluation                                        rate
``deny_share``          evaluations not decided ``allow``                       share
``severe_share``        evaluations decided by a rule of severity high or       share
                        critical
``slow_share``          evaluations that took longer than 1 ms                  share
``engine_errors``       CEL errors met while deciding                           rate
======================  ======================================================  =======

A share is measured per evaluation, so load, season and retries cancel out; a rate is measured per second and sees
what a share cannot: agents that ask again and again. Errors and times carry no tenant in the engine's metrics, so
the runbook's own few questions are among them.

Pure: no clock, no I/O.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from constitution.watch.baseline import Measure
from constitution.watch.counters import parse_matrix

QuantityName = Literal["evaluations", "deny_share", "severe_share", "slow_share", "engine_errors"]
QUANTITY_NAMES: tuple[QuantityName, ...] = get_args(QuantityName)

SEVERE = frozenset({"high", "critical"})
SLOW_BOUND = "0.001"
"""Upper bound of the histogram bucket, in seconds, above which an evaluation is slow: ten times the usual one."""

Entries = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Quantity:
    """One thing to watch.

    Attributes:
        name: of the quantity.
        metric: the counter's name in Prometheus.
        measure: what its events are compared with.
        by_tenant: whether the counter has a label ``tenant``.
        matchers: further PromQL label matchers.
        shaped: turns the counter's series into those that are counted: for a share, ``decision="allow"`` marks what is
            not counted.
    """

    name: QuantityName
    metric: str
    measure: Measure
    by_tenant: bool
    matchers: tuple[str, ...]
    shaped: Callable[[Entries], list[dict[str, Any]]]


def _as_they_are(matrix: Entries) -> list[dict[str, Any]]:
    return [dict(entry) for entry in matrix]


def _severe(matrix: Entries) -> list[dict[str, Any]]:
    """Mark the series of severe decisions as counted; the old label keeps the series apart."""
    shaped = []
    for labels, samples in parse_matrix(matrix):
        severe = labels.get("severity") in SEVERE
        kept = {**labels, "decided": labels.get("decision", ""), "decision": "severe" if severe else "allow"}
        shaped.append({"metric": kept, "values": samples})
    return shaped


def _slow(matrix: Entries) -> list[dict[str, Any]]:
    """Split each histogram into slow and fast evaluations.

    Buckets are cumulative and scraped at one instant, so ``all - fast`` is itself a counter, with the same resets.
    """
    fast: dict[tuple[tuple[str, str], ...], dict[float, float]] = {}
    every: dict[tuple[tuple[str, str], ...], dict[float, float]] = {}
    for labels, samples in parse_matrix(matrix):
        rest = tuple(sorted((k, v) for k, v in labels.items() if k != "le"))
        if labels.get("le") == "+Inf":
            every[rest] = dict(samples)
        elif labels.get("le") == SLOW_BOUND:
            fast[rest] = dict(samples)
    shaped: list[dict[str, Any]] = []
    for rest, totals in every.items():
        quick = fast.get(rest, {})
        times = sorted(t for t in totals if t in quick)
        slow = [(t, max(0.0, totals[t] - quick[t])) for t in times]
        shaped += [
            {"metric": {**dict(rest), "decision": "slow"}, "values": slow},
            {"metric": {**dict(rest), "decision": "allow"}, "values": [(t, quick[t]) for t in times]},
        ]
    return shaped


_EVALUATIONS = "policy_engine_evaluations_total"

QUANTITIES: Mapping[str, Quantity] = {
    quantity.name: quantity
    for quantity in (
        Quantity("evaluations", _EVALUATIONS, "rate", True, (), _as_they_are),
        Quantity("deny_share", _EVALUATIONS, "share", True, (), _as_they_are),
        Quantity("severe_share", _EVALUATIONS, "share", True, (), _severe),
        Quantity(
            "slow_share",
            "policy_engine_evaluation_seconds_bucket",
            "share",
            False,
            (f'le=~"{SLOW_BOUND.replace(".", "[.]")}|[+]Inf"',),
            _slow,
        ),
        Quantity("engine_errors", "policy_engine_cel_errors_total", "rate", False, (), _as_they_are),
    )
}


def quantity_of(measure: Measure) -> QuantityName:
    """The quantity that a strategy without ``quantities`` watches."""
    return "deny_share" if measure == "share" else "evaluations"
