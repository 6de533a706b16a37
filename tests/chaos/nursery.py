"""Starts the services under test quickly: imports them once, then each start is a fork of this process.

Every start is a real process of the real service, as ``python -m services.NAME`` makes it, with an environment built
from nothing. Only the second of imports is shared; a gate that kills and restarts services has no time to pay it each
time. This process starts no thread and opens no connection, so that forking it is safe.

Protocol: one JSON object a line on stdin, ``{"module", "environment", "log"}``; one a line on stdout, ``{"pid"}``.
It ends, and all its children with it, when stdin closes or its parent dies.
"""

import ctypes
import importlib
import json
import os
import runpy
import signal
import sys

MODULES = ("services.constitution_service", "services.policy_engine")

_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")


def _become(module: str, environment: dict[str, str], log: str) -> None:
    """Turn this fork into the service; never returns."""
    _die_with_parent()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with open(os.devnull) as nothing, open(log, "ab") as output:  # noqa: PTH123 - descriptors, not files, are wanted
        os.dup2(nothing.fileno(), 0)
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    marker = {name: os.environ[name] for name in ("CONSTITUTION_GATE",) if name in os.environ}
    os.environ.clear()
    os.environ.update(environment | marker)
    sys.argv = [module]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        os._exit(ended.code if isinstance(ended.code, int) else 1)
    os._exit(0)


def main() -> None:
    """Serve until stdin closes."""
    _die_with_parent()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    for module in MODULES:
        importlib.import_module(f"{module}.__main__")
    children = []
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(order["module"], order["environment"], order["log"])
        children.append(pid)
        sys.stdout.write(json.dumps({"pid": pid}) + "\n")
        sys.stdout.flush()
    for pid in children:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


if __name__ == "__main__":
    main()
