"""Exit codes of every command: part of the interface, listed in ``constitution --help``."""

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit code of the process."""

    OK = 0  # done, or the answer is yes
    REFUSED = 1  # refused, failed, rejected, or the answer is no
    USAGE = 2  # the command line or a setting is wrong; nothing was tried
    UNAVAILABLE = 3  # a server did not answer; the same command may work later
    WAITING = 4  # the time limit of --wait or watch passed; the run goes on
    ROLLED_BACK = 5  # the run followed to its end was rolled back
    INTERNAL = 70  # a fault of this program (EX_SOFTWARE of sysexits.h)
    INTERRUPTED = 130  # Ctrl-C; runs in Temporal go on
    NO_READER = 141  # the reader of the answer went away (128 + SIGPIPE, as a shell shows it)


EXIT_HELP = (
    "Exit codes: 0 done · 1 refused, failed or the answer is no · 2 wrong usage or settings · "
    "3 a server does not answer · 4 still waiting when the time limit passed · 5 the run was rolled back · "
    "70 a fault of this program · 130 interrupted · 141 the reader of the answer went away."
)
