"""Tables, targets and plots from the result files; every number of docs/watch.md between markers comes from here."""

import json
import math
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.watch.cells import HOUR, NULLS, RATES, RATIOS, SIX_HOURS, Cell, cells
from bench.watch.run import SEEDS, read
from bench.watch.streams import bound_scrapes

RIVALS = (
    "static 1.5",
    "static 1.25",
    "static 1.25, 5 fails",
    "alarm 3 sd",
    "alarm 3 sd 3/5",
    "z 3 sd",
    "Kayenta 1 min",
    "Kayenta 5 min",
    "Poisson 5 %",
    "t 5 %",
)
OTHERS = ("late", "down", "hard", "share", "demo", "slack", "slack share", "slack found", "shipped")
SLACK = ("slack", "slack share")
Z95 = 1.96


@dataclass(frozen=True)
class Found:
    """A cell's chunks, added up."""

    cell: Cell
    runs: int
    alarms: dict[str, dict[float, int]]
    refused: int
    missed: int | None

    def hits(self, method: str = "ours") -> int:
        """Streams on which a method raised its alarm."""
        return sum(n for look, n in self.alarms[method].items() if math.isfinite(look))

    def median(self, method: str = "ours") -> float:
        """Median look of the alarm; infinite if half of the streams had none."""
        looks = np.repeat(list(self.alarms[method]), list(self.alarms[method].values()))
        return float(np.sort(looks)[(len(looks) - 1) // 2])

    def bound(self) -> float:
        """Information bound in scrapes."""
        per_scrape = self.cell.per_second * self.cell.interval_s
        return bound_scrapes(self.cell.noise, per_scrape=per_scrape, ratio=self.cell.change.ratio)


def load(directory: Path) -> dict[str, Found]:
    """Every cell that has results."""
    found = {}
    for cell in cells():
        chunks = read(directory / f"{cell.key}.json")
        if not chunks:
            continue
        alarms: dict[str, dict[float, int]] = {}
        for chunk in chunks:
            for method, looks in chunk["alarms"].items():
                into = alarms.setdefault(method, {})
                for look, n in looks.items():
                    key = math.inf if look == "never" else float(look)
                    into[key] = into.get(key, 0) + n
        missed = [chunk["missed"] for chunk in chunks]
        found[cell.key] = Found(
            cell=cell,
            runs=sum(chunk["runs"] for chunk in chunks),
            alarms=alarms,
            refused=sum(chunk["refused"] for chunk in chunks),
            missed=None if None in missed else sum(missed),
        )
    return found


def wilson(hits: int, runs: int) -> tuple[float, float]:
    """95 % confidence interval of a share, in per cent (Wilson)."""
    p = hits / runs
    centre = (p + Z95**2 / (2 * runs)) / (1 + Z95**2 / runs)
    half = Z95 / (1 + Z95**2 / runs) * math.sqrt(p * (1 - p) / runs + Z95**2 / (4 * runs**2))
    low, high = 100 * (centre - half), 100 * (centre + half)
    return (low if hits else 0.0), (high if hits < runs else 100.0)  # exactly, where rounding leaves 1e-17


def percent(hits: int, runs: int) -> str:
    """A share with its interval: ``0.3 (0.1-0.9)``."""
    low, high = wilson(hits, runs)
    return f"{100 * hits / runs:.3g} ({low:.2g}-{high:.2g})"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def pick(found: dict[str, Found], group: str, **where: Any) -> list[Found]:
    """Cells of a group with these attributes (``ratio`` means the change's)."""
    return [
        f
        for f in found.values()
        if f.cell.group == group
        and all((f.cell.change.ratio if k == "ratio" else getattr(f.cell, k)) == v for k, v in where.items())
    ]


def nulls(found: dict[str, Found]) -> str:
    """False rollbacks at ratio 1, ours and the rivals', on the same streams."""
    rows = []
    for f in pick(found, "null", before=HOUR):
        half = pick(found, "null", before=HOUR // 2, noise=f.cell.noise, per_second=f.cell.per_second)
        rows.append(
            [
                f"{f.cell.noise} {f.cell.per_second:g}",
                f"**{percent(f.hits(), f.runs)}**",
                percent(f.hits("ours, both ways"), f.runs),
                percent(half[0].hits(), half[0].runs) if half else "",
                *(f"{100 * f.hits(rival) / f.runs:.3g}" for rival in RIVALS),
            ]
        )
    return table(["null, events/s", "**ours**", "ours, both ways", "ours, 30 min baseline", *RIVALS], rows)


def boundary(found: dict[str, Found]) -> str:
    """False rollbacks exactly on the tolerance."""
    rows = []
    for noise in NULLS[:5]:
        for before, name in ((HOUR // 2, "30 min"), (HOUR, "60 min"), (SIX_HOURS, "60 min, 6 h for the noise")):
            cells_ = {f.cell.per_second: f for f in pick(found, "boundary", noise=noise, before=before)}
            if cells_:
                rows.append([noise, name, *(_percent_of(cells_.get(rate)) for rate in RATES)])
    return table(["noise", "baseline", *(f"{rate:g}/s" for rate in RATES)], rows)


def _percent_of(f: Found | None) -> str:
    return "" if f is None else percent(f.hits(), f.runs)


def delays(found: dict[str, Found], before: int) -> str:
    """Median delays, bounds, power and, where they ran, the rivals' delays."""
    rows = []
    for noise in ("poisson", "nb3", "ar"):
        for rate in RATES:
            row = [f"{noise} {rate:g}"]
            for ratio in RATIOS:
                for f in pick(found, "delay", noise=noise, per_second=rate, ratio=ratio, before=before):
                    power = 100 * f.hits() / f.runs
                    row.append(f"{_look(f.median())} [{f.bound():.3g}] {power:.3g} %")
            rows.append(row)
    return table(["noise, events/s", *(f"x{ratio:g}" for ratio in RATIOS)], rows)


def rivals_delays(found: dict[str, Found]) -> str:
    """Median delays of everybody at x1.5 and x2."""
    rows = []
    for f in found.values():
        if f.cell.group == "delay" and f.cell.rivals:
            methods = ["ours", "ours, both ways", *RIVALS]
            rows.append(
                [
                    f"{f.cell.noise} {f.cell.per_second:g}, x{f.cell.change.ratio:g}",
                    *(_look(f.median(m)) for m in methods),
                ]
            )
    return table(["stream", "**ours**", "ours, both ways", *RIVALS], rows)


def _look(look: float) -> str:
    return "-" if math.isinf(look) else f"{look:g}"


def others(found: dict[str, Found], group: str) -> str:
    """Alarms and median delays of the remaining groups."""
    rows = []
    for f in found.values():
        if f.cell.group != group:
            continue
        c = f.cell
        words = [f"{c.noise} {c.per_second:g}/s, x{c.change.ratio:.3g}"]
        words += [f"over {c.change.ramp_s:g} s"] if c.change.ramp_s else []
        words += [f"in {c.change.share:.0%} of the fleet"] if c.change.share != 1 else []
        words += [f"{c.change.at_s:g} s after publish"] if c.change.at_s else []
        words += [f"of {c.per_second + c.allowed_per_second:g}/s"] if c.allowed_per_second else []
        words += [f"then {c.change.added:+g}"] if c.change.added else []
        words += [f"looking {c.direction}"] if group.startswith("slack") else []
        words += [f"{c.before * c.interval_s:g} s baseline"] if group == "demo" or c.interval_s != 5 else []
        row = [
            ", ".join(words),
            percent(f.hits(), f.runs),
            _look(f.median()),
            percent(f.hits("ours, both ways"), f.runs),
        ]
        row += [f"{100 * f.refused / f.runs:.3g}"]
        if group == "hard":
            row += [f"{100 * f.hits(rival) / f.runs:.3g}" for rival in RIVALS]
        rows.append(row)
    head = ["stream", "alarms %", "median scrape", "both ways %", "baseline refused %"]
    return table(head + (list(RIVALS) if group == "hard" else []), rows)


def faults(directory: Path) -> str:
    """Verdicts under faults of fleet and Prometheus."""
    path = directory / "faults.json"
    if not path.exists():
        return "not run"
    rows = []
    for entry in json.loads(path.read_text(encoding="utf-8")):
        verdicts = ", ".join(f"{verdict} {n}" for verdict, n in sorted(entry["verdicts"].items()))
        delay = "" if entry["delay_s"] is None else f"{entry['delay_s']:.0f} s"
        rows.append([entry["fault"], entry["measure"], str(entry["runs"]), verdicts, delay])
    return table(["what happens", "measure", "runs", "verdicts", "median delay of the anomalies"], rows)


def cost(directory: Path) -> str:
    """Time and state."""
    path = directory / "cost.json"
    if not path.exists():
        return "not run"
    rows = [[kind, *(str(v) for v in entry.values())] for kind, entry in json.loads(path.read_text()).items()]
    head = ["measure", "median µs", "p99 µs", "max µs", "reading with interval µs", "state bytes", "state numbers"]
    return table(head, rows)


def coverage(found: dict[str, Found]) -> str:
    """How often the confidence sequence missed the true ratio at any look."""
    rows = []
    for noise in ("poisson", "nb1.5", "nb3", "ar", "slow ar"):
        for before in (HOUR, HOUR // 2, SIX_HOURS):
            some = [
                f
                for f in found.values()
                if f.cell.noise == noise
                and f.cell.before == before
                and f.missed is not None
                and not f.cell.allowed_per_second
            ]
            if some:
                worst = max(some, key=lambda f: (f.missed or 0) / f.runs)
                missed, runs = sum(f.missed or 0 for f in some), sum(f.runs for f in some)
                stream = f"{worst.cell.per_second:g}/s, x{worst.cell.change.ratio:.3g}"
                where = f"{percent(worst.missed or 0, worst.runs)} at {stream}"
                rows.append([noise, f"{before * 5 / 60:g} min", str(len(some)), percent(missed, runs), where])
    return table(["noise", "baseline", "cells", "missed ever, %", "worst cell"], rows)


@dataclass(frozen=True)
class Target:
    """One row of the targets."""

    name: str
    worst: str
    met: bool | None

    def row(self) -> list[str]:
        """Markdown cells."""
        word = "not run" if self.met is None else ("met" if self.met else "**not met**")
        return [self.name, self.worst, word]


def targets(found: dict[str, Found], directory: Path) -> list[Target]:
    """Every target, the worst cell of it, and whether it is met."""
    rows = [
        _share_target("ratio 1: at most 0.6 % (12 of 2,000) on every null", pick(found, "null"), 0.6),
        _share_target("ratio 1, both ways: the same", pick(found, "null"), 0.6, method="ours, both ways"),
        _share_target(
            "ratio 1, the demo's recorded traffic, both ways: the same",
            pick(found, "demo", noise="demo trace", ratio=1.0),
            0.6,
            method="ours, both ways",
        ),
        _share_target(
            "ratio 1.1, Poisson and NB: at most 0.6 %",
            [f for f in pick(found, "boundary") if f.cell.noise in {"poisson", "nb1.5", "nb3"}],
            0.6,
        ),
        _share_target(
            "ratio 1.1, AR, 60 min baseline: at most 1 %", pick(found, "boundary", noise="ar", before=HOUR), 1.0
        ),
        _share_target(
            "ratio 1.1, AR, 30 min baseline: at most 1.5 %", pick(found, "boundary", noise="ar", before=HOUR // 2), 1.5
        ),
        _share_target(
            "ratio 1.1, slow AR, 6 h for the noise: at most 1 %",
            pick(found, "boundary", noise="slow ar", before=SIX_HOURS),
            1.0,
        ),
    ]
    slack = [f for group in SLACK for f in pick(found, group)]
    still = [f for f in slack if f.cell.change.ratio == 1]
    rows += [
        _share_target("slack, ratio 1, down: at most 0.6 %", still, 0.6),
        _share_target("slack, ratio 1, both ways: the same", still, 0.6, method="ours, both ways"),
    ]
    rows += [
        _share_target(
            f"slack, on its boundary, {noise}: at most {limit:g} %",
            [f for f in slack if f.cell.noise == noise and f.cell.change.ratio != 1],
            limit,
        )
        for noise, limit in (("poisson", 0.6), ("nb3", 0.6), ("ar", 1.0), ("slow ar", 1.0))
    ]
    both = pick(found, "shipped", ratio=1.0)
    rows.append(_share_target("shipped strategies, ratio 1: at most 0.6 %", both, 0.6, method="ours, both ways"))
    for before, factor in ((HOUR, 3.5), (HOUR // 2, 4.5)):
        some = [f for f in pick(found, "delay", before=before) if f.bound() < 90]
        scored = [(f.median() / max(3.0, factor * f.bound()), f) for f in some]
        name = f"median delay at most max(3, {factor:g} x bound), {before * 5 // 60} min baseline, bound under 90"
        rows.append(_worst(name, scored, lambda f: f"{_look(f.median())} scrapes, bound {f.bound():.3g}"))
    late = [(f.median() - 130.5) / (2 * max(3.0, 3.5 * f.bound())) for f in pick(found, "late")]
    rows.append(
        _worst(
            "late change: within twice that",
            list(zip(late, pick(found, "late"), strict=True)),
            lambda f: f"{f.median() - 130.5:g} scrapes after the change, bound {f.bound():.3g}",
        )
    )
    strong = [f for f in pick(found, "delay", before=HOUR) if f.bound() < 30]
    rows.append(
        _worst(
            "power at least 95 % where the bound is under 30, 60 min baseline",
            [(0.95 / max(1e-9, f.hits() / f.runs), f) for f in strong],
            lambda f: f"{100 * f.hits() / f.runs:.4g} %, bound {f.bound():.3g}",
        )
    )
    for noises, limit in ((("poisson", "nb1.5", "nb3"), 1.0), (("ar",), 2.0)):
        some = [
            f
            for f in found.values()
            if f.cell.noise in noises
            and f.missed is not None
            and f.cell.group in {"null", "boundary", "delay"}
            and f.cell.before >= HOUR
        ]
        rows.append(
            _worst(
                f"confidence sequence covers at least {100 - limit:g} % ({', '.join(noises)}), 60 min baseline",
                [(100 * (f.missed or 0) / f.runs / limit, f) for f in some],
                lambda f: f"{100 - 100 * (f.missed or 0) / f.runs:.4g} %",
            )
        )
    path = directory / "cost.json"
    if path.exists():
        entries = json.loads(path.read_text(encoding="utf-8")).values()
        slowest = max(entry["median_us"] for entry in entries)
        rows.append(Target("one update at most 1 ms", f"{slowest} µs (median, slower measure)", slowest <= 1000))
        largest = max(entry["state_numbers"] for entry in entries)
        rows.append(Target("state under 100 numbers", str(largest), largest < 100))
    return rows


def _share_target(name: str, some: list[Found], limit: float, method: str = "ours") -> Target:
    return _worst(
        name,
        [(100 * f.hits(method) / f.runs / limit, f) for f in some],
        lambda f: f"{percent(f.hits(method), f.runs)} %",
    )


def _worst(name: str, scored: list[tuple[float, Found]], words: Any) -> Target:
    """The cell that uses most of its allowance; a score above 1 breaks the target."""
    if not scored:
        return Target(name, "", None)
    score, f = max(scored, key=lambda pair: pair[0])
    broken = sum(s > 1 for s, _ in scored)
    where = f"{f.cell.noise} {f.cell.per_second:g}/s x{f.cell.change.ratio:.3g}"
    many = f"; {broken} of {len(scored)} cells over" if broken else f" ({len(scored)} cells)"
    return Target(name, f"worst: {words(f)} at {where}{many}", score <= 1)


def machine(found: dict[str, Found]) -> str:
    """Machine, versions, runs."""
    runs = sorted({f.runs for f in found.values()})
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    return (
        f"{len(found)} of {len(cells())} cells, {'/'.join(str(r) for r in runs)} runs each, seeds `{SEEDS}`; {cpu}, "
        f"{platform.system()} {platform.machine()}, Python {sys.version.split()[0]}, numpy {np.__version__}. "
        "Figures in brackets are 95 % confidence intervals (Wilson)."
    )


def write(document: Path, directory: Path) -> list[Target]:
    """Replace what stands between the markers of the document, and draw the plots beside it."""
    found = load(directory)
    judged = targets(found, directory)
    parts = {
        "machine": machine(found),
        "targets": table(["target", "worst cell", ""], [t.row() for t in judged]),
        "nulls": nulls(found),
        "boundary": boundary(found),
        "delays60": delays(found, HOUR),
        "delays30": delays(found, HOUR // 2),
        "rivals": rivals_delays(found),
        "coverage": coverage(found),
        "faults": faults(directory),
        "cost": cost(directory),
        **{group.replace(" ", "-"): others(found, group) for group in OTHERS},
    }
    text = document.read_text(encoding="utf-8")
    for name, part in parts.items():
        text = replaced(text, name, part)
    document.write_text(text, encoding="utf-8")
    _plot(found, document.with_suffix(""))
    return judged


def replaced(text: str, name: str, part: str) -> str:
    """Put ``part`` between the markers of ``name``.

    Raises:
        ValueError: they are not there exactly once.
    """
    begins, ends = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    if text.count(begins) != 1 or text.count(ends) != 1:
        raise ValueError(f"the markers of {name} are not there exactly once")
    return text[: text.index(begins)] + begins + part + "\n" + text[text.index(ends) :]


def _plot(found: dict[str, Found], folder: Path) -> None:
    """Delay against the bound, and false rollbacks of everybody, as SVG."""
    import matplotlib as mpl  # noqa: PLC0415 - slow, and only needed here

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - after the backend is chosen

    mpl.rcParams["svg.hashsalt"] = "watch"
    folder.mkdir(exist_ok=True)
    figure, axes = plt.subplots(figsize=(6, 5))
    for noise in ("poisson", "nb3", "ar"):
        some = [f for f in pick(found, "delay", noise=noise, before=HOUR) if math.isfinite(f.median())]
        axes.loglog([f.bound() for f in some], [f.median() for f in some], "o", label=noise)
    line = np.array([1.0, 300.0])
    axes.loglog(line, line, "k-", lw=0.8, label="information bound")
    axes.loglog(line, np.maximum(3, 3.5 * line), "k--", lw=0.8, label="target")
    axes.set_xlabel("information bound (scrapes)")
    axes.set_ylabel("median delay (scrapes)")
    axes.legend()
    figure.savefig(folder / "delay.svg", metadata={"Date": None})
    plt.close(figure)
    figure, axes = plt.subplots(figsize=(8, 4))
    some = pick(found, "null", before=HOUR)
    for i, method in enumerate(["ours", *RIVALS]):
        axes.plot([i] * len(some), [100 * f.hits(method) / f.runs for f in some], "o", alpha=0.5)
    axes.set_xticks(range(1 + len(RIVALS)), ["ours", *RIVALS], rotation=40, ha="right")
    axes.set_ylabel("false rollbacks, % of harmless bakes")
    figure.tight_layout()
    figure.savefig(folder / "false-rollbacks.svg", metadata={"Date": None})
    plt.close(figure)
