"""Looks at a stack's processes from outside: which there are, and whether all have ended."""

import json
from datetime import timedelta
from pathlib import Path

import psutil

from deploy.embedded.leftovers import marked
from deploy.embedded.stack import Stack

# The guardian gives servers 5 s to stop in order; a busy machine needs the rest.
GONE = timedelta(seconds=30)


def supervisor(stack: Stack) -> psutil.Process:
    assert stack._supervisor is not None
    return psutil.Process(stack._supervisor.pid)


def family(stack: Stack) -> list[psutil.Process]:
    """The supervisor and everything below it, the guardian included."""
    root = supervisor(stack)
    return [root, *root.children(recursive=True)]


def alive(processes: list[psutil.Process]) -> list[str]:
    found = []
    for process in processes:
        try:
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(Path(process.exe()).name)  # node renames its main thread
        except psutil.NoSuchProcess:
            continue
    return found


def stack_id(directory: Path) -> str:
    state: dict[str, str] = json.loads((directory / "run" / "state.json").read_text())
    return state["stack_id"]


def nothing_left(directory: Path) -> bool:
    return not marked(f"{stack_id(directory)}:")
