"""From the board's last approval to *live and proved*: the product beside the same calls without Temporal.

Four in turn, a fresh release each: the product's own run; a bare asyncio script; a DBOS workflow; a Prefect flow. All
make the same calls of the same code in the same order (``bench.peers.calls``), which is checked for each release of
each of them. A peer's release is prepared by a run that waits for its last approval, and takes what that run knows from
its history. After the proof the peer's driver confirms its release, and the run is terminated; neither is measured.

The product's time begins when the approval is sent to Temporal and ends when its history has the proof; both are of
one machine's clock. A peer's begins and ends inside its process.
"""

import json
import os
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self
from urllib.parse import urlsplit

from bench.fleet import Fleet
from bench.machine import CHECKOUT
from bench.numbers import summary
from bench.peers.calls import CALLS
from bench.results import DIRECTORY, measuring
from bench.runs import BenchError
from deploy.demo.screen import Screen
from deploy.embedded.stack_directory import write_private

PRODUCT: Final = "product"
PEERS: Final = ("bare", "dbos", "prefect")
TEMPLATES: Final = ("data-handling", "tool-use")
QUIET_S: Final = 60.0
PROJECT: Final = CHECKOUT / "bench" / "peers"


def measure(screen: Screen, *, rounds: int) -> None:
    """Make so many releases with each; store ``overhead``."""
    python = installed(screen)
    with Fleet(DIRECTORY / "stack", screen) as fleet, ExitStack() as exit_, measuring("overhead") as result:
        fleet.end(fleet.update("tool-use", "default"))
        fleet.runs.quiet(seconds=QUIET_S)
        peers = {kind: exit_.enter_context(Peer(kind, python, fleet)) for kind in PEERS}
        samples: list[dict[str, Any]] = []
        for number in range(rounds + 1):  # the first of each warms connections and caches, and does not count
            for kind in (PRODUCT, *PEERS):
                sample = _product(fleet, number) if kind == PRODUCT else peers[kind].release(fleet, number)
                _same_calls(kind, sample)
                fleet.runs.quiet(seconds=QUIET_S)  # guards, too: none of them must undo what was measured
                if (live := fleet.live().generation) != sample["generation"]:
                    raise BenchError(f"generation {live} is live, and not {kind}'s {sample['generation']}")
                screen.say(f"  {number}/{rounds} {kind:<8} {sample['seconds'] * 1000:.0f} ms")
                if number:
                    samples.append({"kind": kind, **sample})
        result["rounds"] = rounds
        result["samples"] = samples
        result["summary"] = summarised(samples)


def summarised(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the quantiles of each kind, of each call, and what the product's p50 is above the bare script's."""
    of = {kind: [sample for sample in samples if sample["kind"] == kind] for kind in (PRODUCT, *PEERS)}
    whole = {kind: summary([sample["seconds"] for sample in found]) for kind, found in of.items()}
    calls = {
        kind: {name: summary([dict(sample["calls"])[name] for sample in found])["p50"] for name in CALLS}
        for kind, found in of.items()
    }
    return {
        "whole": whole,
        "calls_p50": calls,
        "above_bare": {kind: whole[kind]["p50"] - whole["bare"]["p50"] for kind in whole},
        "ratio": {kind: whole[kind]["p50"] / whole["bare"]["p50"] for kind in whole},
    }


def installed(screen: Screen) -> Path:
    """Return the interpreter that has the peers' libraries, which are installed if they are missing."""
    with screen.timed("DBOS and Prefect"):
        subprocess.run(  # noqa: S603 - our own program
            ["python3", str(CHECKOUT / "deploy" / "bootstrap.py"), "sync", "--quiet", "--frozen", "--project", PROJECT],  # noqa: S607
            check=True,
        )
    return PROJECT / ".venv" / "bin" / "python"


def _at_its_last_approval(fleet: Fleet, number: int) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return a run, its first approval, which it has taken, and its last one, which nobody has seen."""
    run = fleet.asked(TEMPLATES[number % 2], "default")
    first, last = (fleet.approval(run, person) for person in ("alva", "bruno"))
    fleet.runs.decide(run, first)
    return run, first, last


def _product(fleet: Fleet, number: int) -> dict[str, Any]:
    run, _, last = _at_its_last_approval(fleet, number)
    began = time.time()
    fleet.runs.decide(run, last)
    fleet.end(run)
    timeline = fleet.runs.timeline(run)
    proved = timeline.done("prove_published")
    decided = timeline.last("check_decision").scheduled
    made = [step for step in timeline.steps if decided <= step.scheduled < proved]
    calls = [
        (step.name, (step.completed - step.started).total_seconds()) for step in made if step.completed and step.started
    ]
    generation = timeline.last("load_release").result["generation"]
    return {"seconds": proved.timestamp() - began, "calls": calls, "generation": generation}


def _same_calls(kind: str, sample: dict[str, Any]) -> None:
    if (names := tuple(name for name, _ in sample["calls"])) != CALLS:
        raise BenchError(f"the calls of {kind} are {names}, and not {CALLS}")


class Peer:
    """A process that makes the calls without Temporal.

    Args:
        kind: ``bare``, ``dbos`` or ``prefect``.
        python: the interpreter with its library.
        fleet: whose releases it makes.
    """

    def __init__(self, kind: str, python: Path, fleet: Fleet) -> None:
        self._kind = kind
        self._scratch = DIRECTORY / "peers" / kind
        self._command = [str(python), "-m", "bench.peers.driver", kind, str(self._scratch)]
        self._fleet = fleet

    def __enter__(self) -> Self:
        self._scratch.mkdir(parents=True, exist_ok=True)
        own = _environment(self._fleet.pid("worker"))
        assessor = _environment(self._fleet.pid("assessor"))
        write_private(self._scratch / "assessor.json", json.dumps(assessor))
        admin = urlsplit(self._fleet.settings["DATABASE_ADMIN_URL"])
        own |= {"DBOS_URL": admin._replace(path="/bench_dbos").geturl(), "PATH": os.environ["PATH"]}
        self._log = (self._scratch / "log").open("w")
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            self._command,
            env=own,
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self._said()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pipe(self._process.stdin).close()
        self._process.wait(timeout=60)
        self._log.close()

    def release(self, fleet: Fleet, number: int) -> dict[str, Any]:
        """Bring a run to its last approval, and take its update live without it."""
        run, first, last = _at_its_last_approval(fleet, number)
        known = fleet.runs.timeline(run)
        given = {
            "run": {"workflow_id": run, "run_id": fleet.runs.run_id(run)},
            "plan": known.last("resolve_update").result,
            "evidence": known.last("predict_shift").result["evidence"],
            "posted": known.last("post_progress").result,
            "first": first,
            "last": last,
        }
        stdin = self._pipe(self._process.stdin)
        stdin.write(json.dumps(given) + "\n")
        stdin.flush()
        answer: dict[str, Any] = json.loads(self._said())
        fleet.runs.terminate(run)  # its update is live and confirmed: there is nothing left for it to do
        return answer

    def _said(self) -> str:
        line = self._pipe(self._process.stdout).readline()
        if not line:
            raise BenchError(f"{self._kind} ended: look at {self._scratch / 'log'}")
        return line

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None  # noqa: S101 - for the type checker
        return pipe


def _environment(pid: int) -> dict[str, str]:
    """Return the settings that a process of the stack was given."""
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().rstrip("\0").split("\0")
    return dict(pair.split("=", 1) for pair in pairs)
