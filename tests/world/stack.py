"""An embedded stack whose supervisor is a fork of the nursery (supervisor.py): it starts in a fraction of the time."""

import os
from pathlib import Path

from deploy.embedded.process import Started
from deploy.embedded.stack import Stack
from tests.world.forks import NURSERY


class ForkedStack(Stack):
    """As `Stack`; a pipe with a name stands for the one that a child would inherit."""

    def _start_supervisor(self, environment: dict[str, str], log: Path) -> Started:
        owner = log.with_name("owner")
        owner.unlink(missing_ok=True)
        os.mkfifo(owner, 0o600)
        end = os.fdopen(os.open(owner, os.O_RDWR), "wb", buffering=0)  # closed when this process ends, in any way
        supervisor = NURSERY.start(
            "tests.world.supervisor", environment, log, stdin=owner, arguments=[str(self.directory)]
        )
        supervisor.stdin = end
        return supervisor
