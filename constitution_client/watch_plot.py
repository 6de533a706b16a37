"""Draws a watch: in the terminal, and as an image for a thread or a report. Values come from the evidence alone."""

import math
from pathlib import Path

from constitution.watch.evidence import QuantityEvidence, WatchEvidence
from constitution_client.render import when
from constitution_client.settings import UsageError

IMAGE_SUFFIXES = (".svg", ".png")
PLOT_LINES = 14
WIDEST = 110  # columns: wider terminals make a curve no clearer
LN_10 = math.log(10)

Points = tuple[list[float], list[float]]


def text_lines(evidence: WatchEvidence, digest: str | None) -> list[str]:
    """Return the watch in words, as ``watch show`` prints it above the plot."""
    lines = [
        f"verdict      {evidence.verdict.value}: {evidence.reason}",
        f"published    {when(evidence.published_at)}, watched until {when(evidence.ends_at)}",
        f"decided at   {when(evidence.decided_at)}",
        f"release      generation {evidence.generation} of {evidence.environment}, update {evidence.update_id}",
        f"evidence     e-value {_power(_highest(evidence))}, limit {_power(evidence.limit)} (alpha {evidence.alpha:g})",
    ]
    if digest is not None:
        lines.append(f"stored as    {digest}")
    for name, one in evidence.quantities.items():
        ratio = "from none" if one.ratio is None else f"x{one.ratio:.3g}"
        high = "unbounded" if one.ci[1] is None else f"{one.ci[1]:.3g}"
        unit = "of evaluations" if one.measure == "share" else "per second"
        share = "" if len(evidence.quantities) == 1 else f", {one.weight:.0%} of the budget"
        lines.append(
            f"{name}: {_level(one):.4g} {unit} before, then {ratio} ({one.ci[0] or 0:.3g} to {high}), "
            f"{one.coverage:.0%} seen{share}{_expected(one)}"
        )
        lines.append(f"  query {one.query}")
    return lines


def terminal(evidence: WatchEvidence, width: int) -> list[str]:
    """Return the plot of the evidence over time as lines of plain text.

    Args:
        evidence: of the watch.
        width: columns of the terminal.
    """
    import plotext

    columns = max(40, min(width, WIDEST))
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plotsize(columns, PLOT_LINES)
    for name, (seconds, values) in _curves(evidence).items():
        plotext.plot(seconds, values, label=name, marker="braille")
    plotext.horizontal_line(evidence.limit / LN_10)
    plotext.xlabel("seconds after publish")
    lines = ["", f"evidence, log10 of the e-value; the line is the limit, {evidence.limit / LN_10:.2g}"]
    lines += plotext.uncolorize(plotext.build()).splitlines()
    leading = evidence.quantities[evidence.leading]
    seconds, values = _levels(leading, evidence)
    if seconds:
        plotext.clear_figure()
        plotext.theme("clear")
        plotext.plotsize(columns, PLOT_LINES)
        plotext.plot(seconds, values, marker="braille")
        plotext.horizontal_line(_level(leading))
        plotext.xlabel("seconds after publish")
        lines += ["", f"{evidence.leading}; the line is the level before, {_level(leading):.4g}"]
        lines += plotext.uncolorize(plotext.build()).splitlines()
    return lines


def image(evidence: WatchEvidence, path: Path) -> None:
    """Write an SVG or PNG; an existing file is replaced.

    Raises:
        UsageError: another suffix, no matplotlib, or a place that cannot be written.
    """
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise UsageError(f"--out {path}: the name must end in {' or '.join(IMAGE_SUFFIXES)}")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError(
            "images need matplotlib", hint="pip install 'constitution-runbook[plot]'; the terminal plot needs nothing"
        ) from error
    figure = Figure(figsize=(9, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    for name, (seconds, values) in _curves(evidence).items():
        above.step(seconds, values, where="post", label=name)
    above.axhline(evidence.limit / LN_10, color="tab:red", linestyle="--", label="limit")
    above.set_ylabel("evidence, log10 e")
    above.legend(loc="upper left")
    above.set_title(f"{evidence.environment}, generation {evidence.generation}: {evidence.verdict.value}")
    leading = evidence.quantities[evidence.leading]
    seconds, values = _levels(leading, evidence)
    below.plot(seconds, values, ".", label=evidence.leading)
    below.axhline(_level(leading), color="tab:green", label="before")
    low, high = _tolerated(leading)
    below.axhspan(low, high, color="tab:green", alpha=0.15, label="tolerated")
    below.set_ylabel("share" if leading.measure == "share" else "per second")
    below.set_xlabel("seconds after publish")
    below.legend(loc="upper left")
    try:
        figure.savefig(path, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)
    except OSError as error:
        raise UsageError(f"--out {path}: {error.strerror}") from error


def summary(evidence: WatchEvidence, digest: str | None) -> dict[str, object]:
    """Return the JSON form: what the file says, without samples and curves."""
    left_out = {"samples": True, "log_e": True, "quantities": {"__all__": {"ticks", "log_e"}}}
    return {
        "digest": digest,
        **evidence.model_dump(mode="json", exclude=left_out),  # type: ignore[arg-type] # pydantic's own nesting
        "max_log_e": _highest(evidence),
    }


def _curves(evidence: WatchEvidence) -> dict[str, Points]:
    start = evidence.published_at.timestamp()
    several = {name: one.log_e for name, one in evidence.quantities.items()} if len(evidence.quantities) > 1 else {}
    curves = {("all" if several else evidence.leading): evidence.log_e, **several}
    return {
        name: ([at - start for at, _ in curve], [(value or 0.0) / LN_10 for _, value in curve])
        for name, curve in curves.items()
        if curve
    }


def _levels(one: QuantityEvidence, evidence: WatchEvidence) -> Points:
    start = evidence.published_at.timestamp()
    seen = [(end - start, count / exposure) for end, count, exposure, _, _ in one.ticks if exposure > 0]
    return [at for at, _ in seen], [value for _, value in seen]


def _level(one: QuantityEvidence) -> float:
    exposure = float(one.baseline.get("t0") or 0.0)
    return float(one.baseline.get("n0") or 0.0) / exposure if exposure > 0 else 0.0


def _tolerated(one: QuantityEvidence) -> tuple[float, float]:
    level, slack = _level(one), one.parameters.min_rate
    low = level * one.parameters.tolerated("down") - slack if "down" in one.parameters.directions else 0.0
    high = level * one.parameters.tolerated("up") + slack if "up" in one.parameters.directions else math.inf
    return max(0.0, low), min(high, 1e12)


def _expected(one: QuantityEvidence) -> str:
    if one.expected.up > 1:
        return f", a rise to x{one.expected.up:.3g} was expected"
    if one.expected.down < 1:
        return f", a fall to x{one.expected.down:.3g} was expected"
    return f", {one.expected.added:.2%} more was expected" if one.expected.added > 0 else ""


def _highest(evidence: WatchEvidence) -> float:
    return max((value for _, value in evidence.log_e if value is not None), default=0.0)


def _power(log_e: float) -> str:
    return f"{math.exp(log_e):.3g}" if log_e < 14 else f"10^{log_e / LN_10:.1f}"
