"""The embedded stack's supervisor, which starts our own processes as forks: for tests that bring up many of them.

It is itself a fork of the test's nursery, so everything has been imported. Before it does anything else it forks a
nursery of its own: its services end with it, as they do in a stack that `make up` starts.
"""

import signal
import sys
from pathlib import Path

from deploy.embedded import supervisor
from deploy.embedded.process import Process, Started
from deploy.embedded.server import Command, base_environment
from tests.world.forks import NURSERY, OURS


class ForkedProcess(Process):
    """One of our own processes as a fork; a server of somebody else's is started as ever."""

    def _start(self, command: Command, log: Path, death_signal: signal.Signals) -> Started:
        module = OURS.get(command.argv[1:])
        if module is None:
            return super()._start(command, log, death_signal)
        environment = base_environment(self._directory) | dict(command.environment)
        return NURSERY.start(module, environment, log, directory=command.cwd or self._directory.path)


if __name__ == "__main__":
    NURSERY.begin_as_fork()
    sys.exit(supervisor.main(ForkedProcess))
