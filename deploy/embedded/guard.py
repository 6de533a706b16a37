"""The supervisor's side of the guardian: starts it and tells it which process groups are the stack's."""

import subprocess
import sys

from deploy.embedded.leftovers import end
from deploy.embedded.stack_directory import CHECKOUT

# The guardian looks for what is left, finds nothing, and ends, in seconds.
GUARDIAN_DEADLINE = 20


class Guard:
    """A running guardian (deploy.embedded.guardian) for one supervisor.

    Args:
        mark: The supervisor's mark.
    """

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._groups: set[int] = set()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "deploy.embedded.guardian"],
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._send(mark)

    def add(self, group: int) -> None:
        """A server leads this process group."""
        self._groups.add(group)
        self._send(f"+{group}")

    def discard(self, group: int) -> None:
        """It has ended with all its members: its number may soon be somebody else's."""
        self._groups.discard(group)
        self._send(f"-{group}")

    def _send(self, line: str) -> None:
        pipe = self._process.stdin
        assert pipe is not None  # noqa: S101 - a pipe was asked for
        pipe.write(f"{line}\n".encode())
        pipe.flush()

    def finish(self) -> bool:
        """End the remaining processes of the servers, then the guardian. Returns whether all have ended."""
        clean = end(self._mark, self._groups, grace=0)
        self._process.communicate(timeout=GUARDIAN_DEADLINE)
        return clean
