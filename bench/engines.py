"""More policy engines than a stack starts: real replicas, each a process of its own, as targets of its releases."""

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from bench.listening import until_it_listens
from bench.machine import CHECKOUT
from deploy.embedded.external import OF_OUR_PROCESSES, REPLACED_BY
from deploy.embedded.ports import Ports
from deploy.embedded.services import TARGETS

SETTINGS: Final = (*OF_OUR_PROCESSES, *REPLACED_BY["kafka"], "CONSTITUTION_SERVICE_URL", "ENVIRONMENT_FILE")
"""What a policy engine of the stack is given, too."""


class Engines:
    """So many more policy engines; they end with the context.

    Args:
        count: how many; none is none.
        logs: a folder for what they write.
    """

    def __init__(self, count: int, logs: Path) -> None:
        self._logs = logs
        self._exit = ExitStack()
        self._ports = Ports()
        self._exit.callback(self._ports.close)
        first = sum(name.startswith("policy-engine-") for name in TARGETS) + 1
        self._engines = {f"policy-engine-{number}": self._ports.any() for number in range(first, first + count)}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit.close()

    def toml(self) -> str:
        """Return their entries of environment.toml."""
        entry = '\n[[targets]]\nid = "{}"\nkind = "policy_engine"\nurl = "http://127.0.0.1:{}"\n'
        return "".join(entry.format(name, port) for name, port in self._engines.items())

    def start(self, settings: dict[str, str]) -> None:
        """Start them with the stack's settings; return when all of them listen.

        Raises:
            BenchError: one did not start.
        """
        given = {name: settings[name] for name in SETTINGS if name in settings}
        command = ["setpriv", "--pdeathsig", "TERM", sys.executable, "-m", "services.policy_engine"]
        started = []
        for name, port in self._engines.items():
            own = {"HOST": "127.0.0.1", "PORT": str(port), "TARGET_ID": name, "PATH": "/usr/bin:/bin"}
            log = self._exit.enter_context((self._logs / f"{name}.log").open("wb"))
            server = subprocess.Popen(command, env=given | own, cwd=CHECKOUT, stdout=log, stderr=log)  # noqa: S603 - ours
            self._exit.callback(_end, server)
            started.append((server, port))
        for server, port in started:
            until_it_listens(server, port)


def _end(server: "subprocess.Popen[bytes]") -> None:
    server.terminate()
    server.wait(timeout=30)
