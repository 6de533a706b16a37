"""Has the nursery (nursery.py) start our own programs, and behaves towards each as `subprocess.Popen` does."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

from deploy.embedded.stack_directory import CHECKOUT
from tests.world import nursery

OURS: Final = {
    ("-m", "services.constitution_service"): "services.constitution_service",
    ("-m", "services.orchestrator"): "services.orchestrator",
    ("-m", "services.policy_engine"): "services.policy_engine",
    ("-m", "services.siem_forwarder"): "services.siem_forwarder",
    (str(CHECKOUT / "worker.py"),): "worker",
    (str(CHECKOUT / "assessor.py"),): "assessor",
}
"""Arguments of Python, and the module that the nursery has imported."""


class Nursery:
    """The program of nursery.py: begun when the first process is asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pipes: tuple[IO[str], IO[str]] | None = None
        self._program: subprocess.Popen[str] | None = None  # kept: it ends with this process

    def start(
        self,
        module: str,
        environment: Mapping[str, str],
        output: Path,
        *,
        errors: Path | None = None,
        stdin: Path = Path(os.devnull),
        arguments: Sequence[str] = (),
        directory: Path = CHECKOUT,
    ) -> "Forked":
        """Start a module; both streams go to `output` unless the errors have a file of their own."""
        order = {
            "module": module,
            "arguments": [*arguments],
            "environment": dict(environment),
            "input": str(stdin),
            "output": str(output),
            "errors": str(errors or output),
            "directory": str(directory),
        }
        pid = self._ask({"start": order})
        assert pid is not None
        return Forked(self, pid)

    def poll(self, pid: int) -> int | None:
        """The exit code of a process of ours that has ended, once."""
        return self._ask({"poll": pid})

    def begin_as_fork(self) -> None:
        """Begin as a fork of this process, which has imported everything and has one thread still."""
        (order, orders), (answers, answer) = os.pipe(), os.pipe()
        if os.fork() == 0:
            os.dup2(order, 0)
            os.dup2(answer, 1)
            for pipe in (order, orders, answers, answer):
                os.close(pipe)
            try:
                nursery.serve()
            finally:
                os._exit(0)
        os.close(order)
        os.close(answer)
        self._pipes = os.fdopen(orders, "w"), os.fdopen(answers)

    def _begin(self) -> tuple[IO[str], IO[str]]:
        self._program = program = subprocess.Popen(  # noqa: S603 - our own code
            ["setpriv", "--pdeathsig", "KILL", sys.executable, "-P", nursery.__file__],  # noqa: S607 - util-linux
            cwd=CHECKOUT,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert program.stdin is not None
        assert program.stdout is not None
        return program.stdin, program.stdout

    def _ask(self, order: dict[str, Any]) -> int | None:
        with self._lock:
            orders, answers = self._pipes = self._pipes or self._begin()
            orders.write(json.dumps(order) + "\n")
            orders.flush()
            answer: int | None = json.loads(answers.readline())
            return answer


NURSERY: Final = Nursery()


class Forked:
    """A process of the nursery; behaves as ``subprocess.Popen`` does, as far as tests need it."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stdin: IO[bytes] | None = None
        self._nursery = nursery

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._nursery.poll(self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: it has not ended.
        """
        if self.poll() is None:
            descriptor = os.pidfd_open(self.pid)
            try:
                if not select.select([descriptor], [], [], timeout)[0]:
                    raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
            finally:
                os.close(descriptor)
        code = self.poll()
        assert code is not None
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def settings_of(pid: int) -> dict[str, str]:
    """The environment variables that a process was started with, or became in the nursery."""
    environment = Path(f"/proc/{pid}/environ")
    for opened in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed while one looks
            if nursery.SETTINGS in str(opened.readlink()):
                environment = opened
    pairs = environment.read_bytes().rstrip(b"\0").split(b"\0")
    return {name: value for name, _, value in (os.fsdecode(pair).partition("=") for pair in pairs)}
