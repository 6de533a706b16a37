"""Runs cells in chunks of a hundred streams, each with a seed of its own; a later run continues the result files."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np

from bench.watch import streams, twin
from bench.watch.cells import Cell
from bench.watch.rivals import all_rivals
from constitution.watch.bet import Direction
from constitution.watch.spike import SpikeParameters

CHUNK = 100
BOTH: tuple[Direction, ...] = ("up", "down")
SEEDS = "d868b3e147a88c45"
"""The family of random streams: drawn from the system's generator on 2026-11-29, after the last change of the test, its
twin and the rivals. The test was tuned while its author watched other streams, so figures from those would flatter it.
Draw another whenever the mathematics changes; results of another family are never continued."""
RESULTS = Path("var/bench/watch") / SEEDS
VERSION = 4  # of the result format and of the test's mathematics: a file of another version is not continued


def chunk(cell: Cell, index: int) -> dict[str, Any]:
    """Simulate a hundred streams: alarms per look and method, baselines refused, confidence sequences that missed."""
    seed = int.from_bytes(hashlib.sha256(f"{SEEDS}/{cell.key}".encode()).digest()[:8], "big")
    rng = np.random.default_rng([seed, index])
    counts = _counts(rng, cell, cell.per_second, cell.change)
    exposures = np.full_like(counts, cell.interval_s)
    if cell.allowed_per_second:
        counts, exposures = _share(rng, cell)
    before, after = counts[:, : cell.before], counts[:, cell.before :]
    exposures_after = exposures[:, cell.before :]
    base = twin.baselines(before, exposures[:, : cell.before], cell.interval_s)
    bake_s = cell.after * cell.interval_s
    parameters = SpikeParameters(
        direction=cell.direction, scrape_interval_s=cell.interval_s, bake_s=bake_s, min_rate=cell.slack
    )
    logs = {d: twin.log_e(d, base, after, exposures_after, parameters) for d in BOTH}
    alarms = {
        "ours": twin.alarms_of(base, [logs[cell.direction]], parameters.limit),
        "ours, both ways": twin.alarms_of(base, list(logs.values()), parameters.limit),
    }
    if cell.slack_total:
        alarms["ours, both ways"] = _together(cell, base, list(logs.values()), exposures, parameters)
    if cell.rivals:
        newest = before[:, -round(3600 / cell.interval_s) :]
        alarms |= {name: rival(newest, after) for name, rival in all_rivals(cell.interval_s).items()}
    steady = cell.change.at_s == cell.change.ramp_s == 0 and cell.noise not in {"drift", "season", "burst after"}
    missed = 0
    steady = steady and cell.change.added == 0
    if steady and cell.change.ratio > 0:
        ratio = 1 + cell.change.share * (cell.change.ratio - 1)
        missed = int(twin.interval_missed(base, after, exposures_after, ratio, parameters.alpha).sum())
    return {
        "runs": CHUNK,
        "alarms": {name: _histogram(looks) for name, looks in alarms.items()},
        "refused": int(base.changing.sum()),
        "missed": missed if steady else None,
        "phi": [float(v) for v in np.quantile(base.phi, [0.05, 0.5, 0.95])],
    }


def _together(
    cell: Cell, base: twin.Baselines, share: list[streams.Array], totals: streams.Array, parameters: SpikeParameters
) -> streams.Array:
    """Alarms of the refused share and of the rate of evaluations in one budget, both ways."""
    seconds = np.full_like(totals, cell.interval_s)
    rate = twin.baselines(totals[:, : cell.before], seconds[:, : cell.before], cell.interval_s)
    slack = parameters.model_copy(update={"min_rate": cell.slack_total})
    logs = [
        twin.log_e(direction, rate, totals[:, cell.before :], seconds[:, cell.before :], slack) for direction in BOTH
    ]
    weighted = [(base, share, 1.0 - cell.weight_total), (rate, logs, cell.weight_total)]
    return twin.alarms_together(weighted, parameters.limit)


def _counts(rng: np.random.Generator, cell: Cell, per_second: float, change: streams.Change) -> streams.Array:
    return streams.counts(
        rng,
        cell.noise,
        per_second=per_second,
        before=cell.before,
        change=change,
        after=cell.after,
        runs=CHUNK,
        interval_s=cell.interval_s,
    )


def _share(rng: np.random.Generator, cell: Cell) -> tuple[streams.Array, streams.Array]:
    """Refused and all evaluations: the load has the noise, the decision of each evaluation is independent of it."""
    total = _counts(rng, cell, cell.per_second + cell.allowed_per_second, streams.Change())
    share = np.full(total.shape, cell.per_second / (cell.per_second + cell.allowed_per_second))
    share[:, cell.before :] *= cell.change.factors(cell.after, cell.interval_s)
    share[:, cell.before :] += cell.change.added
    refused = rng.binomial(total.astype(np.int64), np.clip(share, 0.0, 1.0)).astype(np.float64)
    return refused, np.maximum(total, 1e-9)


def _histogram(looks: streams.Array) -> dict[str, int]:
    found = Counter("never" if math.isinf(look) else str(int(look)) for look in looks)
    return dict(sorted(found.items()))


def simulate(cells: Iterable[Cell], *, runs: int, directory: Path, processes: int) -> None:
    """Bring every cell to ``runs`` streams, continuing what is there."""
    directory.mkdir(parents=True, exist_ok=True)
    work = [(cell, runs, directory) for cell in cells]
    if processes == 1:
        for item in work:
            print(_bring(item), flush=True)
        return
    with Pool(processes) as pool:
        for line in pool.imap_unordered(_bring, work):
            print(line, flush=True)


def _bring(item: tuple[Cell, int, Path]) -> str:
    cell, runs, directory = item
    path = directory / f"{cell.key}.json"
    chunks = read(path)
    while len(chunks) * CHUNK < runs:
        chunks.append(chunk(cell, len(chunks)))
        scratch = path.with_suffix(".part")
        found = {"version": VERSION, "seeds": SEEDS, "cell": cell.key, "chunks": chunks}
        scratch.write_text(json.dumps(found), encoding="utf-8")
        scratch.replace(path)
    return f"{cell.key}: {len(chunks) * CHUNK} runs"


def read(path: Path) -> list[dict[str, Any]]:
    """The chunks of a result file; none if it is missing, of another version, or of other streams."""
    if not path.exists():
        return []
    found = json.loads(path.read_text(encoding="utf-8"))
    return list(found["chunks"]) if (found["version"], found.get("seeds")) == (VERSION, SEEDS) else []
