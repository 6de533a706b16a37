"""Finds and ends every process of a stack by its mark, under any parent.

The mark is in the environment of each process, and is inherited by what that starts. PostgreSQL overwrites its
environment; it carries the mark in its arguments (`cluster_name`). A program that hides its mark in another way is
still found by the process group that it leads.

Standard library only: the guardian runs it, and stays small.
"""

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

MARKER = "CONSTITUTION_STACK"


def marked(mark: str) -> set[int]:
    """Process ids (zombies excluded) whose mark begins with `mark`, without the caller's own."""
    settings = {f"{name}={mark}".encode() for name in (MARKER, "cluster_name")}
    title = f"postgres: {mark}".encode()  # what PostgreSQL's own children call themselves
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            words = (entry / "environ").read_bytes() + b"\0" + (entry / "cmdline").read_bytes()  # empty for a zombie
        except OSError:
            continue  # it has ended, or is somebody else's
        if any(word.startswith((*settings, title)) for word in words.split(b"\0")):
            found.add(int(entry.name))
    return found


def members(groups: Iterable[int]) -> set[int]:
    """Process ids (zombies excluded) in the process groups `groups`."""
    wanted, found = set(groups), set()
    for entry in Path("/proc").iterdir():
        if not wanted or not entry.name.isdigit():
            continue
        try:
            # After the command's closing parenthesis: state, parent, process group (proc_pid_stat(5)).
            state, _, group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(group) in wanted and state not in {"Z", "X"}:
            found.add(int(entry.name))
    return found


def end(mark: str, groups: Iterable[int] = (), *, grace: float) -> bool:
    """Wait for the processes to end by themselves, then kill what is left.

    Args:
        mark: Of one supervisor, or the part of it that all supervisors of a stack share.
        groups: Process groups that the stack's servers lead; groups of living supervisors only, for numbers are
            used again.
        grace: Seconds to wait before the first kill; 0 kills at once.

    Returns:
        True when nothing is left.
    """
    groups = set(groups)
    kill_at = time.monotonic() + grace
    give_up_at = kill_at + 10
    while time.monotonic() < give_up_at:
        processes = marked(mark) | members(groups)
        if not processes:
            return True
        if time.monotonic() >= kill_at:
            for process in processes:
                with suppress(ProcessLookupError):  # it ended in between
                    os.kill(process, signal.SIGKILL)
        time.sleep(0.05)
    return False
