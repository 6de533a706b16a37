"""The one way out of every process that may have touched Temporal.

Temporal's native core keeps threads that outlive the interpreter: a process that used a Client or a Worker and ends
in the usual way dies with SIGSEGV or SIGABRT ("PyGILState_Release … finalizing") in about a third of its runs,
after doing all its work (github.com/temporalio/sdk-python issue 300; measured on Python 3.11, 3.12 and 3.13). Exit
codes are part of our interface, so such a process flushes what Python would have flushed and leaves by ``os._exit``.

The price is known: no ``atexit`` handler, no ``finally`` of a frame above, no daemon-thread clean-up runs. Close
clients and files before calling it.
"""

from __future__ import annotations

import contextlib
import os
import sys

TYPE_CHECKING = False  # typing itself is a tenth of the time to start (help_text.py)
if TYPE_CHECKING:
    from typing import NoReturn


def leave(code: int) -> NoReturn:
    """Flush logs and streams, then end the process at once with ``code``.

    Args:
        code: exit status, 0 to 255.
    """
    if (logging := sys.modules.get("logging")) is not None:  # who never imported it logged nothing
        logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            # A reader that went away (``constitution releases | head -1``) is no reason to lose the exit code.
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
    os._exit(code)
