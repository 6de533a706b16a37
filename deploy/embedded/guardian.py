"""Outlives the supervisor by a few seconds: ends what a killed supervisor left behind.

The supervisor holds the other end of this process's standard input and writes the process group of each server
to it. The end of that input means that the supervisor has ended, in whatever way. Servers have then been told to
stop by the kernel (`setpriv --pdeathsig`); what does not, and what they started themselves, is killed here.

Standard library only. Run: `python -m deploy.embedded.guardian MARK`.
"""

import signal
import sys

from deploy.embedded.leftovers import end

# What a server may take to stop in order after the supervisor was killed, in seconds.
GRACE = 5.0


def main() -> int:
    """Wait for the end of the supervisor, then of its servers. Returns the exit code."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)  # ends with the supervisor, not before it
    groups = {int(line) for line in sys.stdin}
    return 0 if end(sys.argv[1], groups, grace=GRACE) else 1


if __name__ == "__main__":
    sys.exit(main())
