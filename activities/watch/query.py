"""Which samples a watch reads. Pure; PromQL only."""

import json
import math
import re
from collections.abc import Sequence
from datetime import datetime, timedelta

from constitution.environment import Strategy
from constitution.policy.consumer_api import PROBE_TENANT
from constitution.watch.quantities import QUANTITIES, Quantity

LONG_HISTORY = timedelta(hours=6)  # shows the noise; constitution/watch/baseline.py says how much is needed
SHORT_BASELINE = timedelta(minutes=10)  # below it, samples before the baseline are of a set-up phase, not traffic


def selector(tenants: Sequence[str], engines: Sequence[str], quantity: Quantity = QUANTITIES["evaluations"]) -> str:
    """Return the vector selector: every decision of these tenants by these engines, never the runbook's own questions.

    Args:
        tenants: empty: all. A counter without tenants counts for all of them.
        engines: target ids; empty: all. An engine of another environment on the same Prometheus must not count.
        quantity: whose counter is read.
    """
    matchers = list(quantity.matchers)
    if quantity.by_tenant:
        matchers.append(f"tenant!={json.dumps(PROBE_TENANT)}")
    if quantity.by_tenant and tenants:
        matchers.append(f"tenant=~{_any(tenants)}")
    if engines:
        matchers.append(f"target=~{_any(engines)}")
    return f"{quantity.metric}{{{','.join(matchers)}}}"


def _any(names: Sequence[str]) -> str:
    # json.dumps doubles the backslashes of re.escape, as a PromQL string wants them.
    return json.dumps("|".join(re.escape(name) for name in sorted(names)))


def history_seconds(strategy: Strategy) -> int:
    """Return how many seconds before publish are read.

    The baseline's own, and six times as many (six hours at most) to learn the noise from where it is a long one.
    """
    baseline = strategy.baseline_seconds
    if baseline < SHORT_BASELINE.total_seconds():
        return math.ceil(baseline + 2 * strategy.scrape_seconds)
    return max(baseline, min(6 * baseline, int(LONG_HISTORY.total_seconds())))


def resolved(selected: str, seconds: int, at: datetime) -> str:
    """Return the query as a person can paste it: range selector with ``@`` modifier."""
    return f"{selected}[{seconds}s] @ {at.timestamp():.3f}"
