"""Asks a person before something is signed or started in their name."""

import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn, TypeVar

import typer

from constitution_client.settings import UsageError

_T = TypeVar("_T")


def confirm(question: str, *, yes: bool) -> None:
    """Ask, on the terminal, unless ``yes``.

    Raises:
        UsageError: there is no terminal to ask on.
        typer.Exit: the person said no, or closed the input (exit code 1; nothing was signed or started).
        KeyboardInterrupt: Ctrl-C (exit code 130; the same).
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("there is no terminal to ask on", hint="look at what is shown above, then repeat with --yes")
    if not interruptible(lambda: typer.confirm(question, err=True)):
        raise typer.Exit(1)


def interruptible(ask: Callable[[], _T]) -> _T:
    """Call a prompt so that the first Ctrl-C ends it.

    Inside ``asyncio.run`` the first SIGINT only cancels the task, which a blocking read does not notice; and the
    prompt makes one error of Ctrl-C and of the input's end.
    """
    interrupted = False

    def stop(_number: int, _frame: FrameType | None) -> NoReturn:
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, stop)
    try:
        return ask()
    except (typer.Abort, EOFError):
        if interrupted:
            raise KeyboardInterrupt from None
        raise typer.Exit(1) from None
    finally:
        signal.signal(signal.SIGINT, before)
