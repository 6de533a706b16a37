"""The drill: a first constitution, then a whole update and a whole rollback by hand, the worker killed in each step."""

import asyncio
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from constitution.environment import Environment
from constitution.messages import Outcome
from constitution.names import Names
from deploy.demo import agreement
from deploy.demo.runs import Runs, StoryError
from deploy.demo.screen import Screen
from deploy.drill.killer import DrillError, Killer
from deploy.drill.report import Check, Kill, Report
from deploy.embedded.stack import Stack
from deploy.embedded.stack_directory import CHECKOUT

# The activity that does the step's work; the board's is people's.
BEFORE_THE_BOARD = {
    "request": "resolve_update",
    "signatures": "verify_signatures",
    "gate": "run_regression_gate",
}
AFTER_THE_BOARD = {
    "stage": "stage_artifact",
    "validate": "validate_signature",
    "lease": "acquire_lease",
    "publish": "load_release",
    "sync": "sync_targets",
    "watch": "watch_metric",
    "confirm": "record_standing",
    "broadcast": "announce",
    "archive": "archive_release",
}
ROLLBACK = {
    "request": "plan_rollback",
    "lease": "acquire_lease",
    "publish": "load_restored",
    "sync": "sync_targets",
    "confirm": "record_standing",
    "broadcast": "announce",
    "archive": "archive_release",
}
STRATEGY = """
[strategies.drill]
watch_seconds = 2
baseline_seconds = 30
scrape_seconds = 1.0
on_no_data = "continue"
on_cannot_tell = "continue"
on_anomaly = "rollback"
"""
RUN_S = 600.0  # one run with all its kills; each costs at most the 20 s after which a lost attempt is tried again
QUIET_S = 120.0  # until the guards have archived the closed histories
TYPED_S = 120.0  # one command of a person


class Drill:
    """One drill on scratch servers that are started for it.

    Args:
        stack: not started; nothing else uses it.
        say: called with news for people.
    """

    def __init__(self, stack: Stack, say: Callable[[str], None]) -> None:
        self._stack = stack
        self._say = say
        self._settings: dict[str, str] = {}
        self._kills: list[Kill] = []
        self._checks: list[Check] = []

    def run(self) -> Report:
        """Do all of it.

        Raises:
            DrillError: it could not be carried through; its findings until then are lost.
            StackError: a server did not come up.
        """
        begun = time.monotonic()
        self._start()
        beside = ThreadPoolExecutor(1)
        try:
            with Runs(Screen(time.time()), self._settings) as runs:
                self._first(runs)
                self._update(runs, beside)
                self._rollback(runs, beside)
        except StoryError as error:
            raise DrillError(str(error)) from error
        finally:
            beside.shutdown(wait=False)  # after a failure it may follow a run that nobody ends
        return Report(tuple(self._kills), tuple(self._checks), time.monotonic() - begun)

    def _start(self) -> None:
        self._say(f"scratch servers start in {self._stack.directory}")
        self._stack.start("constitution-service")
        self._settings = self._stack.settings()
        file = Path(self._settings["ENVIRONMENT_FILE"])
        file.write_text(file.read_text() + STRATEGY)
        self._stack.start()
        self._settings = self._stack.settings()
        self._environment = Environment.parse(file.read_text())
        self._names = Names(self._settings.get("NAMESPACE", ""))
        self._killer = Killer(self._stack, self._say)

    # what people do

    def _type(self, *arguments: str) -> dict[str, Any]:
        """Run one command of ours as a person of the scratch environment does, and return its answer."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        done = subprocess.run(
            [sys.executable, "-m", "constitution_client", *arguments, "--json"],
            env={**kept, "CONSTITUTION_ENV_FILE": str(self._stack.directory / "stack.env")},
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=TYPED_S,
        )
        if done.returncode != 0:
            raise DrillError(f"constitution {shlex.join(arguments)} exited with {done.returncode}: {done.stderr}")
        answer = json.loads(done.stdout)
        return answer if isinstance(answer, dict) else {"answer": answer}

    def _propose(self, version: str, template: str, previous: str, change_request: str) -> str:
        """Draft, sign, push and ask; return the checksum."""
        drafts = self._stack.directory / "drafts"
        drafts.mkdir(exist_ok=True)
        draft, signature = drafts / f"{version}.json", drafts / f"{version}.json.sig"
        self._type("draft", "--template", template, "--version", version, "--previous", previous, "--out", str(draft))
        self._type("sign", str(draft), "--key", self._key("mara"), "--out", str(signature))
        checksum = str(self._type("push", "--path", str(draft), "--signature", str(signature))["checksum"])
        reason = f"drill: release {version}"
        self._type(
            *("change-request", "--id", change_request, "--checksum", checksum),
            *("--reason", reason, "--key", self._key("mara")),
        )
        return checksum

    def _approve(self, workflow_id: str) -> None:
        for person in ("alva", "bruno"):
            self._type("approve", workflow_id, "--key", self._key(person), "--reason", "read it", "--yes")

    def _key(self, person: str) -> str:
        return str(Path(self._settings["KEYS_DIRECTORY"]) / f"{person}.tsk")

    # the three runs

    def _first(self, runs: Runs) -> None:
        self._say("1.0.0 goes live, undisturbed")
        checksum = self._propose("1.0.0", "tool-use", "none", "CR-1")
        workflow_id = self._names.update_id(self._environment.environment, "CR-1")
        self._type("update", "--change-request", "CR-1", "--checksum", checksum)
        runs.until(workflow_id, lambda status: _step(status, "board") == "waiting", seconds=RUN_S)
        self._approve(workflow_id)
        self._ended(runs, "first release", workflow_id, Outcome.COMPLETED)
        self._agree(runs, "first release", checksum, generation=1, outcomes=1)
        self._restored = checksum

    def _update(self, runs: Runs, beside: ThreadPoolExecutor) -> None:
        self._say("1.1.0, an update: the worker is killed in each step")
        checksum = self._propose("1.1.0", "data-handling", "current", "CR-2")
        workflow_id = self._names.update_id(self._environment.environment, "CR-2")
        steps = BEFORE_THE_BOARD | AFTER_THE_BOARD
        following = beside.submit(asyncio.run, self._killer.follow("update", workflow_id, steps, seconds=RUN_S))
        self._type("update", "--change-request", "CR-2", "--checksum", checksum, "--strategy", "drill")
        self._until_the_board_is_asked(runs, workflow_id, following)
        board = asyncio.run(self._killer.kill_waiting("update", "board"))
        self._approve(workflow_id)
        kills = following.result()
        kills.insert(len(BEFORE_THE_BOARD), board)
        self._every_step("update", kills, [*BEFORE_THE_BOARD, "board", *AFTER_THE_BOARD])
        self._ended(runs, "update", workflow_id, Outcome.COMPLETED)
        self._agree(runs, "update", checksum, generation=2, outcomes=2)

    def _rollback(self, runs: Runs, beside: ThreadPoolExecutor) -> None:
        self._say("back to 1.0.0 by hand: the worker is killed in each step")
        workflow_id = self._names.rollback_id(self._environment.environment, 2)
        following = beside.submit(asyncio.run, self._killer.follow("rollback", workflow_id, ROLLBACK, seconds=RUN_S))
        self._type(
            *("rollback", "--reason", "drill: agents refuse legitimate requests", "--yes", "--key", self._key("olga"))
        )
        self._every_step("rollback", following.result(), list(ROLLBACK))
        self._ended(runs, "rollback", workflow_id, Outcome.COMPLETED)
        self._agree(runs, "rollback", self._restored, generation=3, outcomes=3)

    def _until_the_board_is_asked(self, runs: Runs, workflow_id: str, following: "Future[list[Kill]]") -> None:
        while True:
            try:
                runs.until(workflow_id, lambda status: _step(status, "board") == "waiting", seconds=RUN_S)
            except StoryError:  # a dead worker answers no query
                if following.done():
                    raise
            else:
                return

    # what must be true

    def _every_step(self, run: str, kills: list[Kill], steps: list[str]) -> None:
        self._kills += kills
        hit = [kill.step for kill in kills]
        missed = [step for step in steps if step not in hit]
        detail = f"missed: {', '.join(missed)}" if missed else f"{len(hit)} kills"
        self._checks.append(Check(f"{run}: the worker was killed in each of its steps", not missed, detail))

    def _ended(self, runs: Runs, run: str, workflow_id: str, expected: Outcome) -> None:
        outcome, status = runs.end(workflow_id, seconds=RUN_S)
        detail = (status.outcome_detail.splitlines() or [""])[0]
        self._checks.append(
            Check(f"{run}: ended as {expected.value}", outcome is expected, f"{outcome.value}: {detail}")
        )

    def _agree(self, runs: Runs, run: str, checksum: str, *, generation: int, outcomes: int) -> None:
        runs.quiet(seconds=QUIET_S)
        found = asyncio.run(agreement.read(self._settings, self._environment, outcomes=outcomes))
        others = [
            r for r in found.readings if r.checksum not in {None, checksum} or r.generation not in {None, generation}
        ]
        odd = [f"{r.system}: {r.detail}" for r in found.readings if not r.agrees or r in others]
        detail = "; ".join(odd) or f"{len(found.readings)} systems hold generation {generation}, {checksum[:19]}…"
        self._checks.append(Check(f"{run}: every system agrees", found.agrees and not others, detail))


def _step(status: Any, name: str) -> str:
    return next(str(step.state) for step in status.steps if step.name == name)
