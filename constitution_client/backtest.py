"""``constitution watch backtest``: the watch's verdicts about the past, before a release depends on it.

From a file, one case a line, or from Prometheus: every bake-long window between ``--from`` and ``--to`` is judged as
if a release had gone live at its beginning, so that on a quiet week every ``anomaly`` is a false one.
"""

import json
import math
import shlex
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from constitution.watch.backtest import BacktestCase
    from constitution.watch.spike import SpikeParameters

TIMEOUT_SECONDS = 60.0  # Prometheus' own query timeout is two minutes; a window's raw samples take well under a second
LATEST = 4102444800.0  # 2100-01-01
MAX_ANSWER = 512 * 1024 * 1024  # bytes: 10,000 series of 13 hours would be more, and should be queried more narrowly


def backtest(  # noqa: PLR0917 - typer reads the options from the signature
    file: Annotated[
        Path | None, typer.Option("--input", help="JSONL file of cases, one object a line; - reads stdin.")
    ] = None,
    query: Annotated[
        str | None, typer.Option(help="PromQL selector of a counter, e.g. 'policy_engine_evaluations_total'.")
    ] = None,
    start: Annotated[str | None, typer.Option("--from", help="ISO 8601 or unix seconds.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="ISO 8601 or unix seconds.")] = None,
    publish: Annotated[
        list[str] | None, typer.Option(help="With --query: judge these moments only (ISO 8601 or unix seconds).")
    ] = None,
    prometheus: Annotated[
        str | None, typer.Option(envvar="PROMETHEUS_URL", help="Base URL of Prometheus, for --query.")
    ] = None,
    bake: Annotated[float, typer.Option(help="With --query: length of each watch, seconds.")] = 1800.0,
    baseline: Annotated[float, typer.Option(help="With --query: samples before it, seconds.")] = 6 * 3600.0,
    scrape_interval: Annotated[float, typer.Option(help="With --query: seconds between scrapes.")] = 5.0,
    measure: Annotated[str | None, typer.Option(help="With --query: rate or share; default as for --input.")] = None,
    alpha: Annotated[float, typer.Option(help="Budget of false alarms per watch.")] = 0.01,
    delta: Annotated[float, typer.Option(help="Relative change that is tolerated.")] = 0.10,
    min_rate: Annotated[float, typer.Option(help="Absolute slack, events per second or share of evaluations.")] = 0.0,
    direction: Annotated[str, typer.Option(help="up, down or both.")] = "both",
    level: Annotated[
        float,
        typer.Option(min=1.0, help="Newest part of the baseline that gives the level, seconds (baseline_seconds)."),
    ] = 3600.0,
    left_out: Annotated[
        list[str] | None, typer.Option(help="FROM/TO: no baseline, as of a release that was undone; may be repeated.")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Add the reason of each verdict.")] = False,
) -> None:
    """Run the watch over history: one JSON line per case, with its verdict, decision time and evidence.

    Exit code 2 if the usage or a line of the input is wrong; each bad line is named and the others are judged.
    """
    from constitution.errors import InvalidRequestError
    from constitution.watch.backtest import run_case
    from constitution_client.settings import UsageError

    parameters = _parameters(alpha=alpha, delta=delta, min_rate=min_rate, direction=direction)
    windows = [_window(text) for text in left_out or ()]
    if (file is None) == (query is None):
        raise UsageError("give either --input FILE.jsonl, or --query with --from and --to")
    if file is not None:
        cases = _cases_of_file(file)
    else:
        moments = _moments(start, end, publish, bake)
        cases = _cases_of_prometheus(
            prometheus,
            query=query or "",
            moments=moments,
            shape={"bake_s": bake, "scrape_interval_s": scrape_interval, "measure": measure},
            baseline_s=baseline,
        )
    wrong: list[str] = []
    for place, case in cases:
        try:
            if isinstance(case, InvalidRequestError):
                raise case
            result = run_case(case, parameters, level_s=level, left_out=windows)
        except InvalidRequestError as error:
            wrong.append(f"{place}: {error.diagnostics()}")
            continue
        line = result.model_dump(mode="json")
        if explain:
            line["reason"] = result.reason
        sys.stdout.write(json.dumps(line, allow_nan=False) + "\n")
        sys.stdout.flush()
    if wrong:
        raise UsageError("\n".join(wrong))


def _parameters(**chosen: Any) -> "SpikeParameters":
    from pydantic import ValidationError

    from constitution.environment import issues_of
    from constitution.watch.spike import SpikeParameters
    from constitution_client.settings import UsageError

    try:
        return SpikeParameters(**chosen)
    except ValidationError as error:
        raise UsageError("these flags do not make a test", issues=issues_of(error)) from error


def _cases_of_file(path: Path) -> Iterator[tuple[str, Any]]:
    """Each line's place and its case, or the error that it is none; blank lines are passed over."""
    from constitution.errors import InvalidRequestError
    from constitution.watch.backtest import read_case
    from constitution_client.settings import UsageError

    try:
        # A case may be many megabytes, a file many cases: one line at a time is held.
        with sys.stdin.buffer if str(path) == "-" else path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    yield f"line {number}", read_case(line)
                except InvalidRequestError as error:
                    yield f"line {number}", error
    except OSError as error:
        raise UsageError(f"--input {path}: {error.strerror}", hint=f"ls -l {shlex.quote(str(path.parent))}") from error


def _cases_of_prometheus(
    url: str | None, *, query: str, moments: list[float], shape: dict[str, Any], baseline_s: float
) -> "Iterator[tuple[str, BacktestCase]]":
    import httpx
    from pydantic import ValidationError

    from constitution.environment import issues_of
    from constitution.watch.backtest import BacktestCase
    from constitution_client.settings import UsageError
    from signatures.authorities import authorities

    if not url:
        raise UsageError("--query needs --prometheus URL (or PROMETHEUS_URL)")
    bake_s, interval_s = float(shape["bake_s"]), float(shape["scrape_interval_s"])
    span_s = math.ceil(baseline_s + bake_s + 2 * interval_s)
    # trust_env is off: a proxy that is meant for downloads knows no loopback, and must not see our queries.
    with httpx.Client(base_url=url, timeout=TIMEOUT_SECONDS, trust_env=False, verify=authorities()) as client:
        for moment in moments:
            name = datetime.fromtimestamp(moment, UTC).isoformat()
            try:
                case = BacktestCase(id=name, publish_ts=moment, series=[], **shape)
            except ValidationError as error:
                raise UsageError("these flags do not make a case", issues=issues_of(error)) from error
            series = _raw(client, f"{query}[{span_s}s]", moment + bake_s + interval_s)
            yield name, case.model_copy(update={"series": series})


def _raw(client: Any, query: str, at_s: float) -> list[Any]:
    """Raw samples of a range, from ``POST /api/v1/query`` (Prometheus HTTP API, "Instant queries")."""
    import httpx

    from constitution.addresses import host_of
    from constitution.errors import UnavailableError
    from constitution_client.settings import UsageError

    asked = {"query": query, "time": f"{at_s:.3f}"}
    plain = {"Accept-Encoding": "identity"}  # a compressed answer grows beyond any bound while it is unpacked
    data = bytearray()
    try:
        with client.stream("POST", "/api/v1/query", data=asked, headers=plain) as answer:
            if answer.status_code >= 500:
                raise UnavailableError(f"Prometheus answered {answer.status_code}", hint="make status")
            encoding = answer.headers.get("content-encoding", "identity")
            if encoding != "identity":
                raise UnavailableError(f"Prometheus answered compressed ({encoding[:40]}), unasked")
            for part in answer.iter_raw():
                data += part
                if len(data) > MAX_ANSWER:
                    raise UsageError("the query selects too much; narrow its labels")
    except httpx.HTTPError as error:
        raise UnavailableError(f"Prometheus did not answer: {error}", hint="make status") from error
    try:
        body = json.loads(data)
        kind = body["data"]["resultType"] if body["status"] == "success" else None
        found = body["data"]["result"] if kind == "matrix" else None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UnavailableError(f"{host_of(str(client.base_url))} does not answer like Prometheus") from error
    if not isinstance(found, list):
        problem = body.get("error", "it gave no raw samples")
        raise UsageError(f"--query must be a plain selector of a counter: {problem}")
    return found


def _moments(start: str | None, end: str | None, publish: list[str] | None, bake_s: float) -> list[float]:
    """When releases are assumed to have gone live."""
    from constitution_client.settings import UsageError

    if publish:
        return [_time(moment, "--publish") for moment in publish]
    if start is None or end is None:
        raise UsageError("--query needs --from and --to, or --publish")
    first, last = _time(start, "--from"), _time(end, "--to")
    if not bake_s > 0:
        raise UsageError("--bake must be positive")
    whole = math.floor((last - first) / bake_s + 1e-9)
    if whole < 1:
        raise UsageError(f"between --from and --to there is no room for one watch of {bake_s:g} s")
    return [first + i * bake_s for i in range(whole)]


def _window(text: str) -> tuple[float, float]:
    from constitution_client.settings import UsageError

    start, slash, end = text.partition("/")
    if not slash:
        raise UsageError(f"--left-out {text}: not FROM/TO")
    return _time(start, "--left-out"), _time(end, "--left-out")


def _time(text: str, flag: str) -> float:
    from constitution_client.settings import UsageError

    try:
        moment = float(text)
    except ValueError:
        try:
            parsed = datetime.fromisoformat(text)
        except ValueError as error:
            raise UsageError(f"{flag} {text}: neither unix seconds nor ISO 8601") from error
        moment = (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    if not 0 <= moment <= LATEST:
        raise UsageError(f"{flag} {text}: not a moment between 1970 and 2100")
    return moment
