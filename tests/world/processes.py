"""Runs our own programs as real processes, each with an environment built from nothing."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Self

import httpx

from constitution.policy.consumer_api import PolicyStatus
from deploy.embedded.loopback import loopback
from tests.helpers import eventually, whole_lines
from tests.machine import patience
from tests.ports import free_port
from tests.world.files import CHECKOUT
from tests.world.forks import NURSERY, OURS, Forked, settings_of

START: Final = timedelta(seconds=30)  # importing a service takes seconds on a busy machine
STOP: Final = timedelta(seconds=20)  # its drain takes 10 s, and a silent server some more
POLLS: Final = timedelta(seconds=60)


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
            self.process.wait(patience(STOP).total_seconds())

    def stop(self) -> int:
        """SIGTERM; return the exit code."""
        if self.running.poll() is None:
            self.send(signal.SIGCONT)
            self.running.terminate()
        try:
            return self.running.wait(patience(STOP).total_seconds())
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
        self.port = port or int(settings.get("PORT", 0)) or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        super().__init__(["-m", f"services.{name}"], {"HOST": "127.0.0.1", "PORT": str(self.port), **settings}, log)

    async def healthy(self) -> Self:
        """Wait until it answers ``/healthz``."""
        return await self._answers("/healthz", (HTTPStatus.OK,))

    async def ready(self, accepted: Sequence[int] = (HTTPStatus.OK,)) -> Self:
        """Wait until ``/readyz`` is 200, or one of these."""
        return await self._answers("/readyz", accepted)

    async def _answers(self, path: str, accepted: Sequence[int]) -> Self:
        async with loopback() as http:

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
        async with loopback() as http:
            answer = await http.get(f"{self.url}/v1/policy")
        assert answer.status_code == HTTPStatus.OK, answer.text
        return PolicyStatus.model_validate_json(answer.content)

    async def metric(self, name: str, **labels: str) -> float:
        """Sum of the series of that name whose labels include ``labels``; 0 when there is none."""
        from prometheus_client.parser import text_string_to_metric_families

        async with loopback() as http:
            text = (await http.get(f"{self.url}/metrics")).text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


@asynccontextmanager
async def second_worker(first: int, log: Path, **settings: str) -> AsyncIterator[Process]:
    """Start one more worker, with the very settings of the process `first` and these, and wait until it polls."""
    known = settings_of(first) | {"METRICS_PORT": str(free_port())}
    worker = Process([str(CHECKOUT / "worker.py")], {**known, **settings}, log).start()
    try:
        yield await worker.says("worker: polling", POLLS)
    finally:
        worker.kill()


def run_constitution(
    settings: Mapping[str, str], *arguments: str, directory: Path = CHECKOUT, within: float = 60
) -> tuple[int, str, str]:
    """Run our command line as a fork of the nursery, without a terminal; (exit code, stdout, stderr).

    Raises:
        subprocess.TimeoutExpired: it has not ended within so many seconds; it is killed.
    """
    with TemporaryDirectory(prefix="constitution-") as folder:
        output, errors = Path(folder, "output"), Path(folder, "errors")
        process = NURSERY.start(
            "constitution_client", settings, output, errors=errors, arguments=arguments, directory=directory
        )
        try:
            code = process.wait(within)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return code, output.read_bytes().decode(), errors.read_bytes().decode()


def kept_variables() -> dict[str, str]:
    """What a person's programs get of this process's environment."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}


async def run_program(settings: Mapping[str, str], *command: str) -> tuple[int, str, str]:
    """Run a command as a person does; (exit code, stdout, stderr)."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**kept_variables(), **settings},
        cwd=CHECKOUT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, out.decode(), err.decode()
