"""The watch over the past: one case in, one verdict out, by the very code that runs live (watching.py).

A case is a JSON object ``{"id", "publish_ts", "bake_s", "scrape_interval_s", "series", "measure" (optional)}``;
``series`` are the entries of a Prometheus matrix result. Samples before ``publish_ts`` are the baseline: the newest
hour (or ``level_s``) its level, up to twelve hours its noise. Other fields are ignored, so that a case may carry notes.

Pure: no clock, no I/O.
"""

import json
import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from constitution.environment import issues_of
from constitution.errors import InvalidRequestError
from constitution.model import Model
from constitution.release import Verdict
from constitution.watch.baseline import SHORTEST_SCRAPE_SECONDS, Measure
from constitution.watch.spike import SpikeParameters
from constitution.watch.watching import QuantityWatch


class BacktestCase(Model):
    """One release of the past.

    Args:
        id: any name; it comes back with the result.
        publish_ts: unix seconds of publish.
        bake_s: length of the watch in seconds.
        scrape_interval_s: seconds between scrapes, a tenth at least.
        series: entries of a Prometheus matrix result, before and after publish.
        measure: default ``share`` of what is not allowed where allow-series are present, else ``rate`` of all.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: str | int
    publish_ts: Annotated[float, Field(allow_inf_nan=False)]
    bake_s: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    scrape_interval_s: Annotated[float, Field(ge=SHORTEST_SCRAPE_SECONDS, allow_inf_nan=False)]
    series: list[Any]
    measure: Literal["rate", "share"] | None = None


class BacktestResult(Model):
    """The watch's verdict about one case.

    Args:
        id: of the case.
        verdict: ``ok``, ``anomaly``, ``no_data`` or ``cannot_tell``.
        at: unix seconds of the decision, or null where none could be made.
        log_e: natural log of the highest e-value, on which the decision is made.
        ratio: rate since publish over the rate before; null where unknown.
        ci: confidence sequence of the ratio; null for an end that nothing bounds.
        coverage: share of the watch that was observed.
        reason: in words; not part of the JSON line.
    """

    id: str | int
    verdict: Verdict
    at: float | None
    log_e: float
    ratio: float | None
    ci: tuple[float, float | None]
    coverage: float
    reason: Annotated[str, Field(exclude=True)] = ""


def read_case(line: bytes) -> BacktestCase:
    """Read one line of a JSONL file.

    Raises:
        InvalidRequestError: it is not such an object; every problem is listed.
    """
    try:
        data = json.loads(line.decode("utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InvalidRequestError(f"not JSON: {error}") from error
    except RecursionError as error:
        raise InvalidRequestError("not a case: nested too deeply") from error
    except ValueError as error:  # an integer with thousands of digits
        raise InvalidRequestError(f"not a case: {error}") from error
    if not isinstance(data, dict):
        raise InvalidRequestError("not a JSON object")
    try:
        return BacktestCase.model_validate(data)
    except ValidationError as error:
        raise InvalidRequestError("not a case", issues=issues_of(error)) from error


def run_case(
    case: BacktestCase,
    parameters: SpikeParameters,
    *,
    level_s: float = 3600.0,
    left_out: Sequence[tuple[float, float]] = (),
) -> BacktestResult:
    """Judge one case.

    Args:
        case: the release.
        parameters: alpha, delta, min_rate, direction and the rest; bake and scrape interval are the case's.
        level_s: how much of the end of the baseline gives the level: a strategy's ``baseline_seconds``.
        left_out: windows (from, to) in unix seconds that belong to no baseline: releases that were undone.

    Raises:
        InvalidRequestError: its series are malformed, or its bake does not fit its scrape interval.
    """
    try:
        fitted = SpikeParameters.model_validate(
            parameters.model_dump() | {"bake_s": case.bake_s, "scrape_interval_s": case.scrape_interval_s}
        )
    except ValidationError as error:
        raise InvalidRequestError("the case does not fit the test", issues=issues_of(error)) from error
    measure: Measure | None = case.measure
    watch = QuantityWatch.begin(
        case.series,
        publish_s=case.publish_ts,
        parameters=fitted,
        measure=measure,
        level_s=level_s,
        left_out=left_out,
    )
    reading = watch.advance(case.publish_ts + case.bake_s + case.scrape_interval_s)
    if reading.verdict is None:
        reading = watch.finish()
    low, high = reading.ci
    return BacktestResult(
        id=case.id,
        verdict=Verdict.CANNOT_TELL if reading.verdict is None else reading.verdict,
        at=watch.decided_at(reading),
        log_e=reading.max_log_e,
        ratio=reading.ratio,
        ci=(low, high if math.isfinite(high) else None),
        coverage=reading.coverage,
        reason=reading.reason,
    )
