"""The story that ``make demo`` tells, and checks: each release must end as it is told here, or the demo fails."""

import asyncio
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from dulwich import porcelain

from constitution.environment import Environment
from constitution.messages import Outcome, Status
from constitution.names import Names
from deploy.demo import agreement
from deploy.demo.agreement import Agreement
from deploy.demo.operator import Operator
from deploy.demo.runs import Runs, StoryError
from deploy.demo.screen import Screen
from deploy.demo.stolen import Thief
from deploy.embedded.stack import Stack

HERE: Final = Path(__file__).parent
FIRST_SCRAPES_S: Final = 4.0
"""Beyond a strategy's baseline: until the first scrapes of a fresh stack are whole."""
WATCHED: Final = "watched"
"""The strategy of every release but the first."""
VICTIM: Final = "orchestrator-2"
"""The target that is killed before its sync is proved."""


@dataclass(frozen=True, slots=True)
class Run:
    """One release of the story, for the report. ``generation`` is of the release itself, null if it never was live."""

    name: str
    outcome: str
    version: str
    checksum: str
    generation: int | None
    duration_s: float
    detail: str
    workflow_id: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A release that its operator has started: it waits for the gate and then for the board."""

    workflow_id: str
    version: str
    checksum: str
    began: float


class Story:
    """Tells the story on a running stack.

    Args:
        stack: the real servers.
        screen: what people see.
        sessions_per_second: how many sessions the fleet starts.
    """

    def __init__(self, stack: Stack, screen: Screen, *, sessions_per_second: float) -> None:
        self._stack = stack
        self._screen = screen
        self._settings = stack.settings()
        os.environ.update(self._settings)  # as `set -a; source var/stack.env` does for a person
        self._environment = Environment.parse(Path(self._settings["ENVIRONMENT_FILE"]).read_text())
        self._names = Names(self._settings.get("NAMESPACE", ""))
        drafts = stack.directory / "drafts"
        self._operator = Operator(screen, self._settings, drafts)
        self._runs = Runs(screen, self._settings)
        self._sessions_per_second = sessions_per_second
        self.runs: list[Run] = []
        self.traffic: dict[str, int] = {}
        self.verify_command = ""
        self._steady_since = time.time()

    def tell(self) -> Agreement:
        """Tell the whole story; return what every system says at its end.

        Raises:
            StoryError: something went otherwise than it must.
        """
        with self._runs, self._traffic():
            self._first()
            self._good()
            self._bad()
            self._target_lost()
            with self._screen.timed("the guards archive the closed histories"):
                self._runs.quiet(seconds=60)
        self._receipts()
        with self._screen.timed("reading every system by its own driver"):
            return asyncio.run(agreement.read(self._settings, self._environment, outcomes=len(self.runs)))

    def _receipts(self) -> None:
        """Check out the legal archive, verify the receipt of every release there, and keep the last one's command.

        Raises:
            CommandFailedError: an archived folder is not what was sealed.
        """
        self._screen.chapter("every release has a receipt, which verifies offline")
        checkout = self._stack.directory / "archive-checkout"
        porcelain.clone(self._settings["ARCHIVE_REPOSITORY"], checkout, errstream=io.BytesIO()).close()
        trust = self._settings["TRUST_FILE"]
        folder = checkout / "docs" / "legal" / "constitution"
        answer = self._operator.type("receipt", "verify", str(folder), "--trust", trust)
        newest = max(answer["folders"], key=lambda found: found["sequence"])
        self._screen.say(f"  ✓ {len(answer['folders'])} releases, each as it was sealed")
        self.verify_command = shlex.join(
            ("constitution", "receipt", "verify", str(folder / newest["folder"]), "--trust", trust)
        )

    def tell_of_the_stolen_worker(self) -> None:
        """Tell what a stolen worker can do; a release that is genuine goes through all the same.

        Raises:
            StoryError: a stolen worker was let do what it must not.
        """
        thief = Thief(self._screen, self._settings, self._environment.environment)
        with self._runs, self._traffic():
            self._first()
            self._screen.chapter(
                "the worker is stolen: it has a document that no gate has tested, and deceives the board"
            )
            checksum = self._file("1.1.0", "lockdown", "current", "CR-110")
            thief.load_untested(checksum, "CR-110")
            self._screen.chapter("1.2.0, a genuine change; the stolen worker tries to confirm it before it was watched")
            self._wait_for_baseline()
            good = self._ask("1.2.0", "data-handling", "current", "CR-120", WATCHED)
            self._approve(good)
            self._runs.until(good.workflow_id, _is_watched, seconds=60)
            thief.confirm_unwatched(good.workflow_id)
            status = self._runs.until(good.workflow_id, lambda s: bool(s.refusals), seconds=60)
            self._screen.say(f"  ✗ the run: {status.refusals[-1]}", style="green")
            self._close(good, expect=Outcome.COMPLETED)

    # chapters

    def _first(self) -> None:
        self._screen.chapter("1.0.0, the first constitution: nothing is live, every agent is refused")
        self._release(self._ask("1.0.0", "tool-use", "none", "CR-100", "default"), expect=Outcome.COMPLETED)

    def _good(self) -> None:
        self._screen.chapter("1.1.0, a good change: approved by two of the board, live everywhere, watched")
        # No gate runs while there is a baseline or a watch: beside its tests a busy machine serves fewer agents.
        self._wait_for_baseline()
        good = self._ask("1.1.0", "data-handling", "current", "CR-110", WATCHED)
        self._release(good, expect=Outcome.COMPLETED)

    def _bad(self) -> None:
        self._screen.chapter("1.2.0 passes every gate, but refuses too much: agents try again, evaluations spike")
        before = self._live()
        self._wait_for_baseline()
        bad = self._ask("1.2.0", "lockdown", "current", "CR-120", WATCHED)
        self._release(bad, expect=Outcome.ROLLED_BACK)
        self._same_as(before)

    def _target_lost(self) -> None:
        self._screen.chapter(f"1.3.0 meets a real fault: {VICTIM} is killed before its sync is proved")
        before = self._live()
        self._wait_for_baseline()
        lost = self._ask("1.3.0", "escalation", "current", "CR-130", WATCHED)
        self._approve(lost)
        self._runs.until(lost.workflow_id, _is_live, seconds=60)
        self._stack.kill(VICTIM, signal.SIGKILL)
        self._screen.say(f"  ☠ {VICTIM} got SIGKILL", style="red")
        self._close(lost, expect=Outcome.ROLLED_BACK)
        self._same_as(before)
        with self._screen.timed(f"{VICTIM} comes back and joins the restored release"):
            self._stack.restart(VICTIM)
            self._until_joined(VICTIM)

    # one release

    def _ask(self, version: str, template: str, previous: str, change_request: str, strategy: str) -> Asked:
        """Draft, sign, push, ask and start, as people do by hand before the board is asked."""
        checksum = self._file(version, template, previous, change_request)
        began = time.monotonic()
        self._operator.type(
            "update", "--change-request", change_request, "--checksum", checksum, "--strategy", strategy
        )  # fmt: skip
        return Asked(self._names.update_id(self._environment.environment, change_request), version, checksum, began)

    def _file(self, version: str, template: str, previous: str, change_request: str) -> str:
        """Draft, sign, push and ask; return the document's checksum."""
        operator = self._operator
        draft = operator.paper(f"constitution_v{version}.json")
        signature = operator.paper(f"constitution_v{version}.json.sig")
        operator.type(
            "draft", "--template", template, "--version", version, "--previous", previous, "--out", str(draft)
        )
        operator.type("sign", str(draft), *operator.signs("mara"), "--out", str(signature))
        checksum = str(operator.type("push", "--path", str(draft), "--signature", str(signature))["checksum"])
        operator.type(
            "change-request", "--id", change_request, "--checksum", checksum,
            "--reason", f"release {version}", *operator.signs("mara"),
        )  # fmt: skip
        return checksum

    def _release(self, asked: Asked, *, expect: Outcome) -> None:
        self._approve(asked)
        self._close(asked, expect=expect)

    def _approve(self, asked: Asked) -> None:
        """Wait until the board is asked, and let two of it say yes."""
        self._runs.until(asked.workflow_id, _asks_the_board, seconds=300)
        for person in ("alva", "bruno"):
            self._operator.decide(person, asked.workflow_id, "read it")
        self._steady_since = time.time()  # it goes live now; what was before is no baseline of what comes next

    def _close(self, asked: Asked, *, expect: Outcome) -> None:
        outcome, status = self._runs.end(asked.workflow_id, seconds=300)
        if outcome is Outcome.ROLLED_BACK:
            self._steady_since = time.time()
        seconds = time.monotonic() - asked.began
        self._screen.say(
            f"  = {status.outcome_detail.splitlines()[0]}", style="bold green" if outcome is expect else "bold red"
        )
        self._screen.timings.append((f"{asked.version}: {outcome.value}", seconds))
        self.runs.append(
            Run(
                name=f"release {asked.version}",
                outcome=outcome.value,
                version=asked.version,
                checksum=asked.checksum,
                generation=status.generation,
                duration_s=round(seconds, 3),
                detail=status.outcome_detail.splitlines()[0],
                workflow_id=asked.workflow_id,
            )
        )
        if outcome is not expect:
            raise StoryError(f"{asked.version} ended as {outcome.value}, not {expect.value}: {status.outcome_detail}")

    # the world around

    def _live(self) -> str:
        current = self._operator.type("current")
        return f"{current['version']} {current['checksum']}"

    def _same_as(self, before: str) -> None:
        after = self._live()
        if after != before:
            raise StoryError(f"before it {before} was live, now {after} is")

    def _until_joined(self, name: str) -> None:
        target = next(target for target in self._environment.targets if target.id == name)
        live = self._operator.type("current")["checksum"]
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                policy = httpx.get(f"{target.url}/v1/policy", timeout=5, trust_env=False).json()
            except httpx.TransportError:
                policy = {}
            if policy.get("checksum") == live:
                self._screen.say(f"  ✓ {name} obeys generation {policy['generation']}, {policy['version']}")
                return
            time.sleep(0.1)
        raise StoryError(f"{name} did not join within 30 s")

    def _wait_for_baseline(self) -> None:
        """Wait until there is a baseline to compare with: steady traffic for all of it."""
        seconds = self._environment.strategies[WATCHED].baseline_seconds + FIRST_SCRAPES_S
        with self._screen.timed(f"a baseline of {seconds:.0f} s of steady traffic"):
            self._scraped_for(seconds)

    def _scraped_for(self, seconds: float) -> None:
        """Ask Prometheus itself how far its samples since the last change reach back, instead of trusting a clock."""
        deadline = time.monotonic() + 20 * seconds
        while time.monotonic() < deadline:
            back = max(1, int(time.time() - self._steady_since))
            query = f'min(count_over_time(policy_engine_evaluations_total{{decision="allow"}}[{back}s]))'
            answer = httpx.get(
                f"{self._settings['PROMETHEUS_URL']}/api/v1/query", params={"query": query}, timeout=10, trust_env=False
            ).json()
            found = answer["data"]["result"]
            if found and float(found[0]["value"][1]) >= seconds:
                return
            time.sleep(0.5)
        raise StoryError("Prometheus collected no baseline; look at its log")

    @contextmanager
    def _traffic(self) -> Iterator[None]:
        urls = [target.url for target in self._environment.targets if target.kind == "orchestrator"]
        rate = ["--rate", str(self._sessions_per_second)]
        command = [sys.executable, "-m", "deploy.demo.traffic", *rate, str(HERE / "requests.json"), *urls]
        # pdeathsig: the fleet must not outlive the story, however that ends.
        agents = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *command], stdout=subprocess.PIPE, text=True, cwd=HERE.parents[1]
        )
        try:
            yield
        finally:
            agents.terminate()
            output, _ = agents.communicate(timeout=30)
            self.traffic = json.loads(output) if output.strip() else {}
            self._screen.say(f"traffic: {self.traffic}")

    def report(self, agreed: Agreement, *, setup_s: float) -> dict[str, Any]:
        """Return what ``var/demo/report.json`` holds."""
        return {
            "runs": [asdict(run) for run in self.runs],
            "agreement": agreed.as_json(),
            "traffic": self.traffic,
            "timings": [{"what": what, "seconds": round(seconds, 3)} for what, seconds in self._screen.timings],
            "setup_s": round(setup_s, 3),
            "total_s": round(self._screen.elapsed(), 3),
            "urls": {
                name: value for name, value in self._settings.items() if name.endswith("_URL") and "://" in value
                and "@" not in value
            },
        }  # fmt: skip


def _asks_the_board(status: Status) -> bool:
    board = next(step for step in status.steps if step.name == "board")
    return board.state == "waiting"


def _is_watched(status: Status) -> bool:
    return any(step.name == "watch" and step.state == "running" for step in status.steps) and _is_live(status)


def _is_live(status: Status) -> bool:
    return status.generation is not None


def fresh(directory: Path) -> Path:
    """Return an empty folder for the demo's stack: each demo begins where nothing has ever been live."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory
