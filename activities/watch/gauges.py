"""A watch in the assessor's metrics, while it goes on and when it has ended."""

from collections.abc import Mapping

from temporalio import activity

from activities.watch.live import LiveWatch
from constitution.release import Verdict


def measure(environment: str, verdict: Verdict | None, log_es: Mapping[str, float], live: LiveWatch | None) -> None:
    """Show the watch in the worker's metrics: evidence of each quantity, the limit, and the verdict once there is one.

    ``constitution_watch_verdict`` is 1 for the verdict of the last watch and 0 for the others, all 0 during a watch.
    """
    meter = activity.metric_meter()
    where = {"environment": environment}
    # Temporal's gauges refuse negative values; an e-value below 1 is no evidence.
    log_e = meter.create_gauge_float("constitution_watch_log_e", "Natural log of the e-value, 0 where it is below 1.")
    for name, value in log_es.items():
        log_e.set(max(0.0, value), {**where, "quantity": name})
    if live is not None:
        limit = meter.create_gauge_float("constitution_watch_limit", "Log e-value that means anomaly.")
        limit.set(live.watch.limit, where)
        log_e.set(max(0.0, live.watch.family.update()), {**where, "quantity": "all"})
    shown = meter.create_gauge("constitution_watch_verdict", "1 for the verdict of the last watch.")
    for known in (Verdict.OK, Verdict.ANOMALY, Verdict.NO_DATA, Verdict.CANNOT_TELL):
        shown.set(int(known is verdict), {**where, "verdict": known.value})
