"""``python -m bench.watch --runs 200``: simulate, then write tables and plots into docs/watch.md.

Interrupt it at any time: results are files under ``var/bench/watch/SEEDS`` and the next run goes on where this one
stopped, also with more runs.
"""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from bench.watch import cost, faults, report
from bench.watch.cells import cells
from bench.watch.run import RESULTS, simulate
from constitution.watch.baseline import Measure

FAULT_RUNS = 200  # by the class itself, about 0.3 s each: enough to see a fault that matters
MEASURES: tuple[Measure, ...] = ("share", "rate")


def main(  # noqa: PLR0917 - typer reads the options from the signature
    runs: Annotated[int, typer.Option(min=100, help="Streams per cell; rounded up to whole hundreds.")] = 200,
    processes: Annotated[int, typer.Option(min=1, help="Worker processes.")] = os.cpu_count() or 1,
    directory: Annotated[Path, typer.Option(help="Where results are kept, and continued.")] = RESULTS,
    document: Annotated[Path, typer.Option(help="Its marked tables are written anew.")] = Path("docs/watch.md"),
    only: Annotated[str, typer.Option(help="Only cells whose key contains this; no report then.")] = "",
    fault_runs: Annotated[int, typer.Option(help="Streams per fault.")] = FAULT_RUNS,
    report_only: Annotated[bool, typer.Option("--report-only", help="Simulate nothing.")] = False,
) -> None:
    """Bring every cell to that many runs, continuing earlier results; then write docs/watch.md from them."""
    if not report_only:
        simulate([cell for cell in cells() if only in cell.key], runs=runs, directory=directory, processes=processes)
        if only:
            return
        _faults(directory / "faults.json", min(runs, fault_runs))
        (directory / "cost.json").write_text(json.dumps(cost.measure()), encoding="utf-8")
    for target in report.write(document, directory):
        word = "not run" if target.met is None else ("met" if target.met else "NOT MET")
        print(f"{word:8} {target.name}: {target.worst}")


def _faults(path: Path, runs: int) -> None:
    """Judge each fault, unless that was done with as many runs."""
    entries = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    done = {(entry["fault"], entry["measure"]): entry for entry in entries if entry["runs"] >= runs}
    found = []
    for fault in faults.FAULTS:
        for measure in MEASURES:
            found.append(done.get((fault.name, measure)) or faults.judge(fault, measure, runs))
            print(f"{fault.name}, {measure}: {found[-1]['verdicts']}", flush=True)
    path.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
