"""A whole product on real servers, and the releases that are measured on it.

Drafts, signatures, approvals and starts are the command line's own (`deploy.demo.operator`); nothing is called that
a person could not type.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx

from bench.engines import Engines
from bench.machine import CHECKOUT
from bench.runs import BenchError, Runs
from constitution.environment import Environment
from constitution.messages import Status
from constitution.names import Names
from constitution.policy.consumer_api import PolicyStatus
from constitution.release import Release
from deploy.demo.operator import Operator
from deploy.demo.screen import Screen
from deploy.embedded.stack import ServerStatus, Stack

GATE: Final = CHECKOUT / "bench" / "gate"
"""A small real gate: what is measured begins after it, and the whole one takes ten seconds a draft."""
REQUESTS: Final = CHECKOUT / "deploy" / "demo" / "requests.json"
STRATEGY: Final = """
# Twice what the demo takes: on a machine that others use, half a minute of traffic is too noisy to promise a verdict.
[strategies.measured]
watch_seconds = 60
baseline_seconds = 60
scrape_seconds = 1.0

# For bursty traffic. With a minute of each, one such watch in nine would be refused as blind (simulated), so: longer.
[strategies.bursty]
watch_seconds = 60
baseline_seconds = 120
scrape_seconds = 1.0
on_cannot_tell = "continue"
"""


class Quiet(Screen):
    """Shows no command: fifty releases type three hundred."""

    def say(self, text: str, style: str = "") -> None:
        """Show nothing."""


@dataclass(frozen=True, slots=True)
class Live:
    """A release, and when each target began to obey it."""

    generation: int
    effective_at: datetime
    loaded_at: dict[str, datetime]

    @property
    def everywhere_at(self) -> datetime:
        """Return when the last target began to obey it."""
        return max(self.loaded_at.values())

    @property
    def seconds(self) -> float:
        """Return how long after its commit the last target obeyed."""
        return (self.everywhere_at - self.effective_at).total_seconds()


class Fleet:
    """Starts every server and service in an empty folder; stops all of it at the end.

    Args:
        directory: emptied first.
        screen: where progress is shown.
        more_engines: policy engines besides those of the stack.
    """

    def __init__(self, directory: Path, screen: Screen, more_engines: int = 0) -> None:
        # An empty environment: a benchmark never touches a server that it did not start.
        self._stack = Stack(directory, environment={})
        self._screen = screen
        self._exit = ExitStack()
        self._more_engines = more_engines
        self._version = 0

    def __enter__(self) -> Self:
        self._stack.erase()
        with self._exit:
            self._exit.callback(self._stack.stop)
            with self._screen.timed("servers and services"):
                self._stack.start("constitution-service")  # makes environment.toml, which the worker reads at its start
                self.settings = self._stack.settings()
                file = Path(self.settings["ENVIRONMENT_FILE"])
                given = file.read_text().replace(f'"{CHECKOUT / "tests"}"', f'"{GATE}"')
                more = self._exit.enter_context(Engines(self._more_engines, self._stack.directory))
                file.write_text(given + STRATEGY + more.toml())
                self._stack.start()
                more.start(self._stack.settings())
            self.settings = self._stack.settings()
            self._exit.callback(_put_back, dict(os.environ))
            os.environ.update(self.settings)  # as `set -a; source var/stack.env` does for a person
            self.environment = Environment.parse(file.read_text())
            if self.environment.gate != str(GATE):
                raise BenchError("environment.toml does not name the gate that it was given")
            self.http = self._exit.enter_context(httpx.Client(timeout=10, trust_env=False))
            self.runs = self._exit.enter_context(Runs(self.settings))
            self._names = Names(self.settings.get("NAMESPACE", ""))
            drafts = self._stack.directory / "drafts"
            self.operator = Operator(Quiet(time.time()), self.settings, drafts)
            self._exit = self._exit.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit.close()

    def processes(self) -> list[ServerStatus]:
        """Return every server's state."""
        return self._stack.status()

    def pid(self, name: str) -> int:
        """Return the process id of a server.

        Raises:
            BenchError: it does not run.
        """
        pid = next((server.pid for server in self.processes() if server.name == name), None)
        if pid is None:
            raise BenchError(f"{name} does not run")
        return pid

    def restart(self, name: str) -> None:
        """Start a server anew, as `make restart` does; return when it runs."""
        self._stack.restart(name)

    def update(self, template: str, strategy: str) -> str:
        """Draft, sign, push, file, start, and approve a new version; return the run's id just after the approvals."""
        run = self.asked(template, strategy)
        for person in ("alva", "bruno"):
            self.operator.type("approve", run, *self.operator.signs(person), "--reason", "read it", "--yes")
        return run

    def asked(self, template: str, strategy: str) -> str:
        """Draft, sign, push, file and start a new version; return the run's id when it asks the board."""
        self._version += 1
        version, request = f"1.{self._version}.0", f"CR-{self._version}"
        type_, signs = self.operator.type, self.operator.signs
        draft, signature = (str(self.operator.paper(f"{version}{suffix}")) for suffix in (".json", ".json.sig"))
        previous = "none" if self._version == 1 else "current"
        type_("draft", "--template", template, "--version", version, "--previous", previous, "--out", draft)
        type_("sign", draft, *signs("mara"), "--out", signature)
        checksum = str(type_("push", "--path", draft, "--signature", signature)["checksum"])
        type_("change-request", "--id", request, "--checksum", checksum, "--reason", version, *signs("mara"))
        type_("update", "--change-request", request, "--checksum", checksum, "--strategy", strategy)
        run = self._names.update_id(self.environment.environment, request)
        self.runs.until(run, _asks_the_board, seconds=180)
        return run

    def approval(self, run: str, person: str) -> dict[str, Any]:
        """Return a board member's signed approval, which is not sent."""
        told = (*self.operator.signs(person), "--reason", "read it", "--yes", "--print")
        approval: dict[str, Any] = self.operator.type("approve", run, *told)["approval"]
        return approval

    def rollback(self) -> str:
        """Start a rollback of what is live by hand; return the run's id."""
        signs = self.operator.signs("olga")
        return str(self.operator.type("rollback", "--reason", "measured", "--yes", *signs)["workflow_id"])

    def end(self, run: str, *, outcome: str = "completed", seconds: float = 180) -> None:
        """Wait until a run has closed.

        Raises:
            BenchError: it ended otherwise than as ``outcome``.
        """
        ended, detail = self.runs.outcome(run, seconds=seconds)
        if ended != outcome:
            raise BenchError(f"{run} ended as {ended}, not {outcome}: {detail}")

    def calm(self, seconds: float) -> float:
        """Wait until Prometheus itself has that much of the traffic; return unix seconds of its beginning."""
        query = f"min(count_over_time(policy_engine_evaluations_total{{decision='allow'}}[{int(seconds)}s]))"
        began = time.time()
        while time.time() < began + 20 * seconds:
            url = f"{self.settings['PROMETHEUS_URL']}/api/v1/query"
            found = self.http.get(url, params={"query": query}).raise_for_status().json()["data"]["result"]
            if found and float(found[0]["value"][1]) >= seconds - 2 and time.time() >= began + seconds:
                return began
            time.sleep(0.5)
        raise BenchError("Prometheus collected no baseline; look at its log")

    def live(self) -> Live:
        """Return the newest release and when each target began to obey it.

        Raises:
            BenchError: a target obeys another one.
        """
        url = self.settings["CONSTITUTION_SERVICE_URL"]
        answer = self.http.get(f"{url}/v1/constitution/releases").raise_for_status().json()
        releases = [Release.model_validate(entry) for entry in answer]
        newest = max(releases, key=lambda release: release.generation)
        loaded: dict[str, datetime] = {}
        for target in self.environment.targets:
            status = PolicyStatus.model_validate_json(
                self.http.get(f"{target.url}/v1/policy").raise_for_status().content
            )
            if status.generation != newest.generation or status.loaded_at is None:
                raise BenchError(f"{target.id} obeys generation {status.generation}, not {newest.generation}")
            loaded[target.id] = status.loaded_at
        return Live(newest.generation, newest.effective_at, loaded)

    @contextmanager
    def traffic(self, *, bursty: bool = False) -> Iterator[None]:
        """Let the demo's agents start sessions meanwhile, at the demo's rate on average."""
        urls = [target.url for target in self.environment.targets if target.kind == "orchestrator"]
        command = [sys.executable, "-m", "deploy.demo.traffic", str(REQUESTS), *urls, *(["--bursty"] if bursty else [])]
        # pdeathsig: the agents must not outlive the measurement, however that ends.
        agents = subprocess.Popen(  # noqa: S603 - our own module
            ["setpriv", "--pdeathsig", "TERM", *command],  # noqa: S607 - setpriv is on every PATH
            stdout=subprocess.PIPE, text=True, cwd=CHECKOUT,
        )  # fmt: skip
        try:
            yield
        finally:
            agents.terminate()
            output, _ = agents.communicate(timeout=30)
            self._screen.say(f"traffic: {json.loads(output) if output.strip() else 'none'}")


def _asks_the_board(status: Status) -> bool:
    return next(step for step in status.steps if step.name == "board").state == "waiting"


def _put_back(environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
