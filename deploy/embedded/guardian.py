"""Outlives the supervisor by a few seconds: ends the processes that a killed supervisor left behind.

The supervisor holds the other end of this process's standard input. It writes its mark to it, then `+N` for each
process group that a server leads and `-N` when that has ended. The end of that input means that the supervisor has
ended, in any way. The kernel has then signalled its servers to stop (`setpriv --pdeathsig`); the guardian kills those
that do not, and the processes that they started themselves.

Standard library only. Run: `python -m deploy.embedded.guardian`.
"""

import signal
import sys

from deploy.embedded.leftovers import end

# Seconds that a server may take to stop in order after the supervisor was killed.
GRACE = 5.0


def main() -> int:
    """Wait for the end of the supervisor, then of its servers. Returns the exit code."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)  # ends with the supervisor, not before it
    mark = sys.stdin.readline().strip()
    groups: set[int] = set()
    for line in sys.stdin:
        (groups.add if line.startswith("+") else groups.discard)(int(line[1:]))
    return 0 if not mark or end(mark, groups, grace=GRACE) else 1


if __name__ == "__main__":
    sys.exit(main())
