"""Writes the tables of bench/README.md from the stored results; the text between two markers is written anew."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from bench.machine import CHECKOUT
from bench.numbers import ms
from bench.results import load

README: Final = CHECKOUT / "bench" / "README.md"
P50_TARGET_S: Final = 2.0
P99_TARGET_S: Final = 4.0
"""Targets of an undo, from the verdict to the restored release on every target."""
PROPAGATION_GOAL_S: Final = 0.150
"""Of the p99, from a release's commit to the last of ten targets."""
OVERHEAD_GOAL_S: Final = 0.300
"""Of the product's p50 above the bare script's, from the last approval to live and proved."""
RESUME_GOAL_S: Final = 5.0
"""Of the p95, from a worker's SIGKILL to its run's next step."""


def write(document: Path = README) -> list[str]:
    """Bring the document's tables up to date; return the names of those that have a result.

    Raises:
        ValueError: a table's markers are not in the document exactly once.
    """
    text = document.read_text(encoding="utf-8")
    written = []
    for name, table in TABLES.items():
        result = load(name)
        if result is None:
            continue
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise ValueError(f"{document.name}: the markers of {name} are not there exactly once")
        part = f"\n{table(result)}\n\n{_measured(result)}\n\n"
        text = text[: text.index(begin)] + begin + part + text[text.index(end) :]
        written.append(name)
    document.write_text(text, encoding="utf-8")
    return written


def _table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def _measured(result: dict[str, Any]) -> str:
    machine = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    changed = f" and {machine['changed_files']} changed files" if machine["changed_files"] else ""
    return (
        f"<sub>{result['begun']['at']} to {result['ended']['at']}; {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['memory_gib']} GiB, {machine['system']}, Python {machine['python']}; load average before "
        f"{result['begun']['load_1min']}, after {result['ended']['load_1min']}; commit {machine['commit']}{changed}; "
        f"{versions}.</sub>"
    )


def _times(name: str, of: dict[str, Any]) -> list[str]:
    return [name, *(ms(of[q]) for q in ("min", "p50", "p99", "max")), str(of["n"])]


def _release(result: dict[str, Any]) -> str:
    s = result["summary"]
    rows = [
        _times(f"commit to **every one of {result['targets']} targets obeys**", s["obeyed"]),
        _times("- of updates", s["obeyed_update"]),
        _times("- of rollbacks", s["obeyed_rollback"]),
        _times("commit to the first target obeys", s["first_target"]),
        _times("**lower bound**, the sum of:", s["bound"]),
        _times("- Kafka transaction, produce to consume", s["bound_kafka"]),
        _times("- `GET /v1/constitution`", s["bound_fetch"]),
        _times("- verify and compile", s["bound_verify"]),
        ["**ratio to the lower bound**", "", f"{s['ratio']['p50']:.1f}", f"{s['ratio']['p99']:.1f}", "", ""],
        _times("update: the board's last approval to run completed", s["decided_update"]),
        _times("rollback by hand: start to run completed", s["run_rollback"]),
        _times("update: start to run completed (small gate, people in no time)", s["run_update"]),
    ]
    p99 = s["obeyed"]["p99"]
    word = "met" if p99 < PROPAGATION_GOAL_S else f"NOT met: {(p99 - PROPAGATION_GOAL_S) * 1000:.0f} ms too slow"
    goal = f"p99 {p99 * 1000:.0f} ms, goal for 10 targets: below {PROPAGATION_GOAL_S * 1000:.0f} ms: {word}."
    return _table([f"{result['releases']} releases", "min", "p50", "p99", "max", "n"], rows) + f"\n\n{goal}"


def _undo(result: dict[str, Any]) -> str:
    s = result["summary"]
    rows = [
        _times("verdict (`decided_at`) to **restored release on every target**", s["total"]),
        *(_times(f"- {stage}", of) for stage, of in s["stages"].items()),
        _times("watch's answer in the history to restored everywhere", s["known"]),
    ]
    lines = []
    for name, target in (("p50", P50_TARGET_S), ("p99", P99_TARGET_S)):
        got = s["total"][name]
        word = "met" if got <= target else f"NOT met: {got - target:.2f} s too slow"
        lines.append(f"{name} {got:.2f} s, target {target:g} s: {word}")
    return _table(
        [f"{result['anomalies']} anomalies, {result['targets']} targets", "min", "p50", "p99", "max", "n"], rows
    ) + "\n\n" + "; ".join(lines) + "."  # fmt: skip


def _resume(result: dict[str, Any]) -> str:
    s = result["summary"]
    rows = [
        _times("SIGKILL of the worker to **the run's next step**", s["resumed"]),
        _times("lower bound: an interpreter that imports the worker", s["bound"]),
    ]
    word = "met" if s["resumed_p95"] <= RESUME_GOAL_S else f"NOT met: {s['resumed_p95'] - RESUME_GOAL_S:.2f} s too slow"
    goal = f"p95 {s['resumed_p95']:.2f} s, goal {RESUME_GOAL_S:g} s: {word}."
    over = f"Releases that were over before the worker died: {result['missed']}."
    return _table([f"{result['kills']} kills", "min", "p50", "p99", "max", "n"], rows) + f"\n\n{goal} {over}"


PEER_LABELS: Final = {
    "product": "**the product** (Temporal)",
    "bare": "bare asyncio script",
    "dbos": "DBOS",
    "prefect": "Prefect",
}


def _overhead(result: dict[str, Any]) -> str:
    s = result["summary"]
    head = ["last approval to live and proved", "min", "p50", "p99", "max", "n", "p50 above bare", "ratio to bare"]
    rows = [
        [*_times(PEER_LABELS[kind], of), ms(s["above_bare"][kind]), f"{s['ratio'][kind]:.2f}"]
        for kind, of in s["whole"].items()
    ]
    above = s["above_bare"]["product"]
    word = "met" if above <= OVERHEAD_GOAL_S else f"NOT met: {(above - OVERHEAD_GOAL_S) * 1000:.0f} ms too slow"
    goal = f"The product's p50 above the bare script's: {ms(above)}, goal {ms(OVERHEAD_GOAL_S)}: {word}."
    calls = [
        [f"`{name}`", *(ms(of[name]) for of in s["calls_p50"].values())] for name in next(iter(s["calls_p50"].values()))
    ]
    of_calls = _table(["p50 of each call", *(PEER_LABELS[kind] for kind in s["calls_p50"])], calls)
    return _table(head, rows) + f"\n\n{goal}\n\n{of_calls}"


def _memory(result: dict[str, Any]) -> str:
    rows = []
    for name, after in result["after"].items():
        before = result["before"].get(name, {})
        rows.append(
            [
                name,
                str(after["processes"]),
                f"{before.get('rss', float('nan')):.0f}",
                f"{after['rss']:.0f}",
                f"{before.get('pss_all', float('nan')):.0f}",
                f"{after['pss_all']:.0f}",
            ]
        )
    total = [sum(m["pss_all"] for m in result[when].values()) for when in ("before", "after")]
    rows.append(["**all**", "", "", "", *(f"**{value:.0f}**" for value in total)])
    head = ["MiB", "processes", "RSS before", f"RSS after {result['releases']} releases"]
    return _table([*head, "PSS with children, before", "PSS with children, after"], rows)


def _fanout(result: dict[str, Any]) -> str:
    head = [
        "targets",
        "late",
        "all obey, seen",
        "bare loop",
        "ratio",
        "CPU of the asker, a question",
        "peak memory of the asker",
        "largest heartbeat",
        "result",
        "attestation",
        "sign and store",
        "read and verify",
    ]
    rows = [
        [
            f"{row['targets']:,}",
            "1 %" if row["late"] else "none",
            ms(row["seconds"]),
            ms(row["bare_seconds"]),
            f"{row['ratio']:.2f}",
            ms(row["cpu_seconds"] / row["questions"]),
            f"{row['peak_rss'] / 2**20:.0f} MiB",
            f"{row['largest_heartbeat']} B",
            f"{row['result_bytes']} B",
            f"{row['attestation_bytes']} B",
            ms(row["sign_and_store_seconds"]),
            ms(row["verify_seconds"]),
        ]
        for row in result["summary"]
    ]
    return _table(head, rows)


LABELS: Final = {
    "service": "**constitution-service**",
    "engine": "**policy engine**",
    "bare": "bare application",
    "validating": "FastAPI, validates on each call",
}


def _turns(result: dict[str, Any]) -> str:
    head = [
        "connections",
        "asked",
        "",
        "answers/s",
        "p50",
        "p99",
        "CPU an answer",
        "bare/s over its",
        "CPU over bare's",
    ]
    rows = [
        [
            str(row["connections"]),
            row["asked"],
            LABELS[row["server"]],
            f"{row['per_second']['p50']:.0f}",
            ms(row["p50"]),
            ms(row["p99"]),
            f"{row['cpu']['p50'] * 1e6:.0f} µs",
            f"{row['rate_ratio']['p50']:.2f}",
            f"{row['cpu_ratio']['p50']:.2f}",
        ]
        for row in sorted(result["summary"], key=lambda row: (row["connections"], row["asked"]))
    ]
    return _table(head, rows)


def _verify(result: dict[str, Any]) -> str:
    rows = [
        [
            row["kind"],
            *(ms(row["ours"][quantile]) for quantile in ("min", "p50", "p99")),
            ms(row["bare"]["p50"]),
            f"{row['ratio']:.2f}",
            str(row["ours"]["n"]),
        ]
        for row in result["summary"]
    ]
    return _table(["", "min", "p50", "p99", "lower bound, p50", "ratio", "n"], rows)


def _setup(result: dict[str, Any]) -> str:
    states = ("cold", "warm")
    cold, warm = (result[state] for state in states)
    rows = [
        ["clone to the demo's end", *(f"{result[state]['wall_s']:.0f} s" for state in states)],
        ["`make demo`, all of it", *(f"{result[state]['total_s']:.0f} s" for state in states)],
        ["- until every server answers", *(f"{result[state]['setup_s']:.0f} s" for state in states)],
    ]
    later = {entry["what"]: entry["seconds"] for entry in warm["timings"]}
    for entry in cold["timings"]:
        other = later.get(entry["what"])
        rows.append([f"- {entry['what']}", f"{entry['seconds']:.1f} s", "" if other is None else f"{other:.1f} s"])
    rows.append(["caches afterwards", *(f"{result[state]['cache_mib']} MiB" for state in states)])
    return _table(["", *states], rows) + f"\n\nBy `{result['command']}`."


def _life(result: dict[str, Any]) -> str:
    """Tell of ``tests.faults.load``: what happened, and what it took over time."""
    seconds, events = result["seconds"], result["events"]
    rows = [
        ["releases and rollbacks", f"{result['made']} of {result['releases']} in {result['minutes']:.1f} min"],
        ["a minute", f"{result['per_minute']:.1f}"],
        ["outcomes", ", ".join(f"{times} {what}" for what, times in sorted(result["outcomes"].items()))],
        ["hit by a fault", f"{sum(result['faults'].values())}, of {len(result['faults'])} kinds"],
        ["a person had to say retry", str(result["retries"])],
        ["**wrong outcomes**", str(len(result["wrong"]))],
        ["**findings of the auditor**", str(len(result["audits"]))],
        *_events(events),
        ["Slack calls", _calls(result)],
    ]
    for name, label in (("calm", "start to outcome, without a fault"), ("hit", "start to outcome, with one")):
        if seconds[name] is not None:
            rows.append([label, f"p50 {ms(seconds[name]['p50'])}, p99 {ms(seconds[name]['p99'])}"])
    parts = [_table(["", ""], rows)]
    if result["error"]:
        parts.append(f"**It stopped**: {result['error'][:300]}")
    head = ["", "n", "at first", "at last", "a 100 releases more", "95 % of it", "restarts", ""]
    parts.append(_table(head, [_line(entry) for entry in result["lines"]]))
    return "\n\n".join(parts)


def _events(events: dict[str, int] | None) -> list[list[str]]:
    if events is None:
        return [["**events lost, doubled**", "not read"]]
    return [
        ["**events lost, doubled**", f"{events['lost']}, {events['doubled']} (of {events['expected']})"],
        ["the same event once more", str(events["repeated"])],
    ]


def _calls(result: dict[str, Any]) -> str:
    total = sum(result["slack_calls"].values())
    by_method = ", ".join(f"{times} {method}" for method, times in result["slack_calls"].items())
    return f"{total}, {total / max(result['made'], 1):.1f} a release ({by_method})"


def _line(entry: dict[str, Any]) -> list[str]:
    per = ["", ""]
    if entry["slope"] is not None:
        slope, low, high = (100 * entry[name] for name in ("slope", "low", "high"))
        per = [f"{slope:+.2f}", f"{low:+.2f} … {high:+.2f}"]
    verdict = entry["verdict"] if entry["ours"] else "not judged"
    name = f"{entry['process']} {entry['quantity']}".strip().replace("_", " ")
    return [name, str(entry["n"]), f"{entry['first']:g}", f"{entry['last']:g}", *per, str(entry["restarts"]), verdict]


TABLES: Final[dict[str, Callable[[dict[str, Any]], str]]] = {
    "release": _release,
    "undo": _undo,
    "overhead": _overhead,
    "resume": _resume,
    "memory": _memory,
    "read": _turns,
    "engine": _turns,
    "verify": _verify,
    "fanout": _fanout,
    "setup": _setup,
    "life": _life,
}
