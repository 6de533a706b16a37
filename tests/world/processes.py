"""Runs our own programs as real processes, each with an environment built from nothing."""

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import httpx

from constitution.policy.consumer_api import PolicyStatus
from tests.helpers import eventually, whole_lines
from tests.ports import free_port
from tests.world.files import CHECKOUT

OURS: Final = {
    ("-m", "services.constitution_service"): "services.constitution_service",
    ("-m", "services.orchestrator"): "services.orchestrator",
    ("-m", "services.policy_engine"): "services.policy_engine",
    ("-m", "services.siem_forwarder"): "services.siem_forwarder",
    (str(CHECKOUT / "worker.py"),): "worker",
}
"""Arguments of Python, and the module that the nursery has imported (nursery.py)."""

START: Final = timedelta(seconds=30)  # importing a service takes seconds on a busy machine
POLLS: Final = timedelta(seconds=60)


class Nursery:
    """The program of nursery.py: one for this test process, begun when the first of our processes is started."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._program: subprocess.Popen[str] | None = None

    def start(self, module: str, environment: Mapping[str, str], log: Path) -> "Forked":
        pid = self._ask({"start": {"module": module, "environment": dict(environment), "log": str(log)}})
        assert pid is not None
        return Forked(self, pid, dict(environment))

    def poll(self, pid: int) -> int | None:
        """The exit code of a process of ours that has ended, once."""
        return self._ask({"poll": pid})

    def _ask(self, order: dict[str, Any]) -> int | None:
        with self._lock:
            if self._program is None:
                script = str(Path(__file__).with_name("nursery.py"))
                self._program = subprocess.Popen(  # noqa: S603 - our own code
                    ["setpriv", "--pdeathsig", "KILL", sys.executable, "-P", script],  # noqa: S607 - util-linux
                    cwd=CHECKOUT,
                    env={"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT)},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            assert self._program.stdin is not None
            assert self._program.stdout is not None
            self._program.stdin.write(json.dumps(order) + "\n")
            self._program.stdin.flush()
            answer: int | None = json.loads(self._program.stdout.readline())
            return answer


NURSERY: Final = Nursery()


class Forked:
    """A process of the nursery; behaves as ``subprocess.Popen`` does, as far as tests need it."""

    settings: ClassVar[dict[int, dict[str, str]]] = {}
    """By process id: ``/proc`` shows what the nursery was started with."""

    def __init__(self, nursery: Nursery, pid: int, environment: dict[str, str]) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._nursery = nursery
        self.settings[pid] = environment

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._nursery.poll(self.pid)
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: it has not ended.
        """
        if self.poll() is None:
            descriptor = os.pidfd_open(self.pid)
            try:
                if not select.select([descriptor], [], [], timeout)[0]:
                    raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            finally:
                os.close(descriptor)
        code = self.poll()
        assert code is not None
        return code

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Process:
    """A Python process that dies with the test process.

    Args:
        arguments: after ``python``.
        settings: its whole environment, besides PATH.
        log: where its output goes.
    """

    def __init__(self, arguments: Iterable[str], settings: Mapping[str, str], log: Path) -> None:
        self._arguments = list(arguments)
        self._settings = dict(settings)
        self.log = log
        self.killed = False
        self.process: subprocess.Popen[bytes] | Forked | None = None

    def start(self) -> Self:
        environment = {"PATH": os.environ["PATH"], **self._settings}
        if (module := OURS.get(tuple(self._arguments))) is not None:
            self.process = NURSERY.start(module, environment, self.log)
            return self
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(  # noqa: S603 - our own code
                ["setpriv", "--pdeathsig", "KILL", sys.executable, *self._arguments],  # noqa: S607 - util-linux
                cwd=CHECKOUT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        return self

    @property
    def running(self) -> "subprocess.Popen[bytes] | Forked":
        assert self.process is not None
        return self.process

    @property
    def pid(self) -> int:
        return self.running.pid

    def send(self, number: signal.Signals) -> None:
        self.running.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.killed = True
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)

    def stop(self) -> int:
        """SIGTERM; return the exit code."""
        if self.running.poll() is None:
            self.send(signal.SIGCONT)
            self.running.terminate()
        try:
            return self.running.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def output(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def events(self, name: str) -> list[dict[str, Any]]:
        """Lines of the log with this event name."""
        lines = [json.loads(line) for line in whole_lines(self.log) if line.startswith("{")]
        return [line for line in lines if line.get("event") == name]

    async def says(self, words: str, deadline: timedelta = START) -> Self:
        """Wait until its log holds these words; it must not end before."""

        def said() -> bool:
            if self.running.poll() is not None:
                raise RuntimeError(f"it ended: {self.output()[-2000:]}")
            return words in self.output()

        await eventually(said, deadline)
        return self


class Service(Process):
    """A service of ours, as ``python -m services.NAME``."""

    def __init__(self, name: str, settings: Mapping[str, str], log: Path, *, port: int | None = None) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        super().__init__(["-m", f"services.{name}"], {"HOST": "127.0.0.1", "PORT": str(self.port), **settings}, log)

    async def healthy(self) -> Self:
        """Wait until it answers ``/healthz``."""
        return await self._answers("/healthz", (HTTPStatus.OK,))

    async def ready(self, accepted: Sequence[int] = (HTTPStatus.OK,)) -> Self:
        """Wait until ``/readyz`` is 200, or one of these."""
        return await self._answers("/readyz", accepted)

    async def _answers(self, path: str, accepted: Sequence[int]) -> Self:
        async with httpx.AsyncClient(trust_env=False) as http:

            async def answers() -> bool:
                if self.running.poll() is not None:
                    raise RuntimeError(f"it ended: {self.output()[-4000:]}")
                try:
                    answer = await http.get(f"{self.url}{path}")
                except httpx.TransportError:
                    return False
                assert answer.status_code in accepted, answer.text
                return True

            await eventually(answers, START)
        return self

    async def policy(self) -> PolicyStatus:
        async with httpx.AsyncClient(trust_env=False) as http:
            answer = await http.get(f"{self.url}/v1/policy")
        assert answer.status_code == HTTPStatus.OK, answer.text
        return PolicyStatus.model_validate_json(answer.content)

    async def metric(self, name: str, **labels: str) -> float:
        """Sum of the series of that name whose labels include ``labels``; 0 when there is none."""
        from prometheus_client.parser import text_string_to_metric_families

        async with httpx.AsyncClient(trust_env=False) as http:
            text = (await http.get(f"{self.url}/metrics")).text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


def settings_of(pid: int) -> dict[str, str]:
    """The environment variables that a process was started with."""
    if pid in Forked.settings:
        return Forked.settings[pid]
    pairs = Path(f"/proc/{pid}/environ").read_bytes().rstrip(b"\0").split(b"\0")
    return {name: value for name, _, value in (os.fsdecode(pair).partition("=") for pair in pairs)}


@asynccontextmanager
async def second_worker(first: int, log: Path, **settings: str) -> AsyncIterator[Process]:
    """Start one more worker, with the very settings of the process `first` and these, and wait until it polls."""
    known = settings_of(first) | {"METRICS_PORT": str(free_port())}
    worker = Process([str(CHECKOUT / "worker.py")], {**known, **settings}, log).start()
    try:
        yield await worker.says("worker: polling", POLLS)
    finally:
        worker.kill()


async def run_program(settings: Mapping[str, str], *command: str) -> tuple[int, str, str]:
    """Run a command as a person does; (exit code, stdout, stderr)."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**kept, **settings},
        cwd=CHECKOUT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, out.decode(), err.decode()
