"""``python -m bench.harmless``: harmless releases in a row under bursty traffic, then a bad one; live and backtest.

Real servers, the demo's agents, whole releases by the command line, watched by the strategy ``bursty`` of
bench/fleet.py. The harmless ones change the rules, but none of the agents' requests is decided otherwise by them. Each
watch's evidence is exported, and its window judged again by ``constitution watch backtest``, from Prometheus anew.
Results go to ``var/bench/harmless.json`` and into docs/watch.md. Exit 1 if a harmless release was rolled back, the bad
one was not, or a backtest contradicts its watch.
"""

import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from bench.fleet import Fleet
from bench.machine import CHECKOUT
from bench.results import DIRECTORY, load, measuring
from bench.runs import BenchError
from bench.watch.report import replaced, table
from constitution.watch.counters import CounterGrid, grid_origin
from constitution.watch.evidence import WatchEvidence
from constitution_client.exit import leave
from deploy.demo.operator import CommandFailedError
from deploy.demo.screen import Screen
from deploy.embedded.control import StackError

HARMLESS: Final = ("data-handling", "escalation", "tool-use")
"""Templates that decide the agents' requests alike."""
BAD: Final = "lockdown"
STRATEGY: Final = "bursty"
CALM_S: Final = 124.0
"""Traffic before the first watched release: its baseline of 120 s, and the scrapes at both ends."""
QUIET_S: Final = 90.0
CLOSE: Final = 1e-6
"""Between two log e-values of the same samples: another order of summation may differ in the last digits."""
DOCUMENT: Final = CHECKOUT / "docs" / "watch.md"


def measure(screen: Screen, *, releases: int) -> bool:
    """Have so many harmless releases watched, then a bad one; store ``harmless``; say whether all went as it must."""
    drafts = DIRECTORY / "harmless"
    drafts.mkdir(parents=True, exist_ok=True)
    with (
        Fleet(DIRECTORY / "harmless-stack", screen) as fleet,
        fleet.traffic(bursty=True),
        measuring("harmless") as result,
    ):
        fleet.end(fleet.update("tool-use", "default"))
        fleet.runs.quiet(seconds=QUIET_S)
        began = fleet.calm(CALM_S)
        samples: list[dict[str, Any]] = []
        # A release that the preflight refuses as blind was not watched, so another one takes its place; twice as many
        # tries are enough, or something is wrong.
        for template in islice(cycle(HARMLESS), 2 * releases):
            samples.append(_one(fleet, template, drafts))
            _say(screen, samples[-1])
            if sum(sample["watched"] for sample in samples) == releases:
                break
        result["trace"] = _trace(fleet, began, drafts)
        samples.append(_one(fleet, BAD, drafts))
        _say(screen, samples[-1])
        result["traffic"] = "Markov-modulated Poisson sessions, see deploy/demo/traffic.py --bursty"
        result["samples"] = samples
        result["as_it_must"] = _as_it_must(samples, releases)
    return bool(result["as_it_must"])


def _one(fleet: Fleet, template: str, drafts: Path) -> dict[str, Any]:
    """Release it, watched; export the evidence; judge the same window again."""
    fleet.runs.quiet(seconds=QUIET_S)
    run = fleet.update(template, STRATEGY)
    outcome, why = fleet.runs.outcome(run, seconds=300)
    sample: dict[str, Any] = {"run": run, "template": template, "outcome": outcome, "watched": False, "why": why}
    watches = [step for step in fleet.runs.timeline(run).steps if step.name == "watch_metric" and step.result]
    if not watches:
        return sample
    report = watches[-1].result
    file = drafts / f"{run.rpartition('/')[2]}.json"
    fleet.operator.type("watch", "show", run, "--save", str(file))
    evidence = WatchEvidence.read(file.read_bytes())
    backtest = _backtest(fleet, evidence)
    decided = evidence.decided_at.timestamp()
    return sample | {
        "watched": True,
        "verdict": report["verdict"],
        "detail": report["detail"],
        "log_e": report["log_e"],
        "limit": report["limit"],
        "ratio": report["ratio"],
        "ci": report["ci"],
        "coverage": report["coverage"],
        "evidence": report["evidence"],
        "phi": evidence.quantities[evidence.leading].baseline["phi"],
        "rate": evidence.quantities[evidence.leading].baseline["n0"]
        / evidence.quantities[evidence.leading].baseline["t0"],
        "decided_s": decided - evidence.published_at.timestamp(),
        "backtest": backtest,
        "agrees": backtest["verdict"] == report["verdict"]
        and abs(backtest["log_e"] - report["log_e"]) < CLOSE
        and (report["verdict"] != "anomaly" or abs(backtest["at"] - decided) < 1e-3),
    }


def _backtest(fleet: Fleet, evidence: WatchEvidence) -> dict[str, Any]:
    """Judge a watch's window by the command that operators use, from Prometheus."""
    kept = evidence.quantities[evidence.leading]
    p = kept.parameters
    bake_s = (evidence.ends_at - evidence.published_at).total_seconds()
    selector, _, rest = kept.query.rpartition("[")
    baseline_s = float(rest.partition("s]")[0]) - p.scrape_interval_s  # the command adds one scrape
    options = {
        "--query": selector,
        "--publish": repr(evidence.published_at.timestamp()),
        "--bake": f"{bake_s:g}",
        "--baseline": f"{baseline_s:g}",
        "--scrape-interval": f"{p.scrape_interval_s:g}",
        "--measure": kept.measure,
        "--alpha": f"{evidence.alpha:g}",
        "--delta": f"{p.delta:g}",
        "--min-rate": repr(p.min_rate),
        "--level": f"{baseline_s - p.scrape_interval_s:g}",
        "--direction": p.direction,
        "--prometheus": fleet.settings["PROMETHEUS_URL"],
    }
    # The window's last scrape must be there.
    time.sleep(max(0.0, evidence.ends_at.timestamp() + 2 * p.scrape_interval_s - time.time()))
    command = [sys.executable, "-m", "constitution_client", "watch", "backtest"]
    done = subprocess.run(  # noqa: S603 - our own command
        [*command, *(word for pair in options.items() for word in pair)],
        capture_output=True, text=True, cwd=CHECKOUT, timeout=60, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise BenchError(f"the backtest exited with {done.returncode}: {done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _trace(fleet: Fleet, began: float, drafts: Path) -> dict[str, Any]:
    """Return evaluations per scrape since ``began``, as the watch reads them."""
    newest = max(drafts.glob("*.json"), key=lambda path: path.stat().st_mtime)
    evidence = WatchEvidence.read(newest.read_bytes())
    selector = evidence.quantities[evidence.leading].query.rpartition("[")[0]
    now = time.time()
    answer = fleet.http.post(
        f"{fleet.settings['PROMETHEUS_URL']}/api/v1/query",
        data={"query": f"{selector}[{int(now - began)}s]", "time": f"{now - 1:.3f}"},
    )
    matrix = answer.raise_for_status().json()["data"]["result"]
    grid = CounterGrid(origin_s=grid_origin(matrix, publish_s=now - 1, interval_s=1.0), interval_s=1.0, measure="rate")
    grid.feed(matrix)
    ticks = [tick for tick in grid.ticks(now - 2) if tick.seconds > 0]
    return {
        "from": datetime.fromtimestamp(ticks[0].end_s, UTC).isoformat(),
        "interval_s": 1.0,
        "gaps": sum(tick.seconds > 1.0 for tick in ticks),
        "counts": [round(tick.count, 3) for tick in ticks],
    }


def _as_it_must(samples: list[dict[str, Any]], releases: int) -> bool:
    *harmless, bad = samples
    watched = [sample for sample in harmless if sample["watched"]]
    return (
        len(watched) == releases
        and all(sample["outcome"] == "completed" and sample["verdict"] in {"ok", "cannot_tell"} for sample in watched)
        and (bad["outcome"], bad.get("verdict")) == ("RolledBack", "anomaly")
        and all(sample["agrees"] for sample in [*watched, bad])
    )


def _say(screen: Screen, sample: dict[str, Any]) -> None:
    line = "not watched: " + sample["why"] if not sample["watched"] else f"{sample['verdict']}: {sample['detail']}"
    word = "" if not sample["watched"] else (" = backtest" if sample["agrees"] else " CONTRADICTED BY ITS BACKTEST")
    screen.say(f"  {sample['template']:<14} {sample['outcome']:<10} {line}{word}")


def write(document: Path = DOCUMENT) -> None:
    """Bring the table of the document up to date.

    Raises:
        BenchError: there is no result yet.
        ValueError: the markers are not there exactly once.
    """
    result = load("harmless")
    if result is None:
        raise BenchError("no var/bench/harmless.json; run: python -m bench.harmless")
    rows = []
    for number, sample in enumerate(result["samples"], start=1):
        if not sample["watched"]:
            rows.append([str(number), sample["template"], sample["outcome"], sample["why"], *[""] * 5])
            continue
        low, high = sample["ci"]
        rows.append(
            [
                str(number),
                sample["template"],
                sample["outcome"],
                f"{sample['verdict']} after {sample['decided_s']:.0f} s",
                f"{sample['rate']:.3g} /s, phi {sample['phi']:.3g}",
                f"{sample['ratio']:.3g} ({low:.2g} to {'∞' if high is None else format(high, '.2g')})",
                f"{sample['log_e']:.2f} of {sample['limit']:.2f}",
                sample["backtest"]["verdict"],
                "yes" if sample["agrees"] else "**no**",
            ]
        )
    head = ["", "release", "outcome", "live verdict", "baseline", "ratio (99 %)", "log e", "backtest", "same"]
    machine, begun, ended = result["machine"], result["begun"], result["ended"]
    words = (
        f"{begun['at']} to {ended['at']}; {machine['cpu']}, {machine['cores']} cores, load average "
        f"{begun['load_1min']} to {ended['load_1min']}; commit {machine['commit']}; "
        f"{len(result['trace']['counts'])} scrapes of harmless traffic recorded."
    )
    text = document.read_text(encoding="utf-8")
    document.write_text(replaced(text, "harmless", f"{table(head, rows)}\n\n<sub>{words}</sub>"), encoding="utf-8")


def main(
    releases: Annotated[int, typer.Option(min=1, help="Harmless ones.")] = 10,
    table_only: Annotated[bool, typer.Option("--table-only", help="Measure nothing.")] = False,
) -> None:
    """Measure, and write the table of docs/watch.md."""
    good = True if table_only else measure(Screen(time.time()), releases=releases)
    write()
    if not good:
        raise typer.Exit(1)


if __name__ == "__main__":
    code = 0
    try:
        typer.run(main)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except (BenchError, CommandFailedError, StackError) as error:
        sys.stderr.write(f"nothing was measured: {error}\n")
        code = 1
    sys.stdout.flush()
    leave(code)
