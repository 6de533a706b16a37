"""Starts our own processes quickly: their modules are imported once, then each start is a fork of this program.

Every start is a real process that runs the real module as ``__main__``, with an environment built from nothing; only
the seconds of imports are shared. `make up`, the README's commands and the tests of the embedded stack start each
process anew. This program starts no thread and opens no connection, so that forking it is safe: it refuses to serve
otherwise.

Protocol: one JSON object a line on stdin, ``{"start": {"module", "environment", "log"}}`` or ``{"poll": PID}``; its
answer on stdout, a pid, or the exit code (null while it runs). All children end with it.
"""

import ctypes
import gc
import importlib
import json
import os
import runpy
import signal
import sys
from pathlib import Path
from typing import Any, Final

MODULES: Final = (
    "services.constitution_service",
    "services.orchestrator",
    "services.policy_engine",
    "services.siem_forwarder",
    "worker",
)
_PR_SET_PDEATHSIG: Final = 1


def _die_with_parent() -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")


def _become(module: str, environment: dict[str, str], log: str) -> None:
    """Turn this fork into the process; never returns."""
    code = 1
    try:
        _die_with_parent()
        with Path(os.devnull).open() as nothing, Path(log).open("ab") as output:
            os.dup2(nothing.fileno(), 0)
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = [module]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended.code, str):
            sys.stderr.write(f"{ended.code}\n")
    except BaseException:  # noqa: BLE001 - as the interpreter does it
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _poll(pid: int) -> int | None:
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


def main() -> None:
    """Serve until stdin closes."""
    _die_with_parent()
    for module in MODULES:
        importlib.import_module(f"{module}.__main__" if module.startswith("services.") else module)
    if len(list(Path("/proc/self/task").iterdir())) != 1:
        raise SystemExit("an import has started a thread: a fork would lack it")
    gc.collect()
    gc.freeze()  # what was imported is never looked at again, and stays shared
    for line in sys.stdin:
        order: dict[str, Any] = json.loads(line)
        answer: int | None
        if "poll" in order:
            answer = _poll(order["poll"])
        else:
            answer = os.fork()
            if answer == 0:
                _become(**order["start"])
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
