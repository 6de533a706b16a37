"""Finds and ends every process of a stack by the mark in its environment, whoever its parent is now.

Standard library only: the guardian runs it, and stays small.
"""

import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

MARKER = "CONSTITUTION_STACK"


def marked(mark: str) -> set[int]:
    """Process ids (zombies excluded) whose mark begins with `mark`, without the caller's own."""
    prefix = f"{MARKER}={mark}".encode()
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")  # empty for a zombie
        except OSError:
            continue  # it has ended, or is somebody else's
        if any(setting.startswith(prefix) for setting in environment):
            found.add(int(entry.name))
    return found


def groups_alive(groups: Iterable[int]) -> set[int]:
    """The process groups among `groups` that have a member which is no zombie."""
    wanted, alive = set(groups), set()
    for entry in Path("/proc").iterdir():
        if not wanted or not entry.name.isdigit():
            continue
        try:
            # After the command's closing parenthesis: state, parent, process group (proc_pid_stat(5)).
            state, _, group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(group) in wanted and state not in {"Z", "X"}:
            alive.add(int(group))
    return alive


def end(mark: str, groups: Iterable[int], *, grace: float) -> bool:
    """Wait for the processes to end by themselves, then kill what is left.

    Args:
        mark: Of one supervisor, or the part of it that all supervisors of a stack share.
        groups: Process groups that the stack's servers lead; PostgreSQL overwrites its environment.
        grace: Seconds to wait before the first kill; 0 kills at once.

    Returns:
        True when nothing is left.
    """
    groups = set(groups)
    kill_at = time.monotonic() + grace
    give_up_at = kill_at + 10
    while time.monotonic() < give_up_at:
        processes, leaders = marked(mark), groups_alive(groups)
        if not processes and not leaders:
            return True
        if time.monotonic() >= kill_at:
            for process in processes:
                _signal(os.kill, process)
            for leader in leaders:
                _signal(os.killpg, leader)
        time.sleep(0.05)
    return False


def _signal(send: Callable[[int, int], None], process: int) -> None:
    with suppress(ProcessLookupError):  # it ended in between
        send(process, signal.SIGKILL)
