"""Starts our own processes quickly: their modules are imported once, then each start is a fork of this program.

Every start is a real process that runs the real module as ``__main__``, with an environment built from nothing; only
the seconds of imports are shared. `make up`, the README's commands and the tests of the embedded stack start each
process anew. This program starts no thread and opens no connection, so that forking it is safe: it refuses to serve
otherwise.

Protocol: one JSON object a line on stdin, ``{"start": {"module", "arguments", "environment", "input", "output",
"errors", "directory"}}`` or ``{"poll": PID}``; its answer on stdout, a pid, or the exit code (null while it runs). All
children end with it. forks.py is the other side.
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
    "assessor",
    "constitution_client",
    "tests.world.supervisor",
)
_SCRIPTS: Final = ("worker", "assessor", "tests.world.supervisor")  # the others are packages with a ``__main__``
SETTINGS: Final = "constitution-settings"
_LOG: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND
_PR_SET_PDEATHSIG: Final = 1


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")


def _become(*, module: str, arguments: list[str], environment: dict[str, str], directory: str, **streams: str) -> None:
    """Turn this fork into the process; never returns."""
    code = 1
    try:
        die_with_parent()
        os.setsid()  # it leads a process group: who ends it ends what it started
        for number, (stream, flags) in enumerate((("input", os.O_RDONLY), ("output", _LOG), ("errors", _LOG))):
            opened = os.open(streams[stream], flags, 0o600)
            os.dup2(opened, number)
            os.close(opened)
        os.chdir(directory)
        os.environ.clear()
        os.environ.update(environment)
        _say_settings(environment)
        if environment.get("PYTHONUNBUFFERED"):
            sys.stdout.reconfigure(write_through=True)  # type: ignore[union-attr]
        sys.argv = [module, *arguments]
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


def _say_settings(environment: dict[str, str]) -> None:
    """Keep the environment where `forks.settings_of` looks: ``/proc`` shows what the nursery was started with."""
    with os.fdopen(os.memfd_create(SETTINGS), "wb", closefd=False) as kept:
        kept.write("\0".join(f"{name}={value}" for name, value in environment.items()).encode())


def _poll(pid: int) -> int | None:
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


def serve() -> None:
    """Answer orders until stdin closes; everything has been imported."""
    die_with_parent()
    if len(list(Path("/proc/self/task").iterdir())) != 1:
        raise SystemExit("there is more than one thread: a fork would lack the others")
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


def main() -> None:
    """Import, then serve."""
    for module in MODULES:
        imported = importlib.import_module(module if module in _SCRIPTS else f"{module}.__main__")
        if module not in _SCRIPTS:
            del sys.modules[imported.__name__]  # runpy warns of one that it runs anew
    gc.collect()
    gc.freeze()  # what was imported is never looked at again, and stays shared
    serve()


if __name__ == "__main__":
    main()
