"""Standard streams as a command finds them: closed, full, ASCII only, or with a reader that went away.

All output of a command goes through these three streams, so they are made usable before anything else runs, and a
failed write is found before the process reports success.
"""

from __future__ import annotations

import errno
import os
import sys

from constitution_client.exit_codes import ExitCode

TYPE_CHECKING = False  # typing and pathlib are a fifth of the time to start (help_text.py)
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

UNWRITTEN = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG})
"""What a write to a stream fails with. Files that a command writes have errors of their own (``files.py``)."""


def prepare() -> str | None:
    """Make the streams usable; return why the command cannot start, if it cannot.

    A closed descriptor is opened on the null device: else the next file or connection would get its number, and
    receive the output. A character that an encoding lacks is replaced, never a reason to stop.
    """
    if sys.stdin is None:
        _open_null(0)
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: PTH123, SIM115 - lives as long as the process
    no_result = sys.stdout is None
    if no_result:
        _open_null(1)
        sys.stdout = _nowhere()
    if sys.stderr is None:
        _open_null(2)
        sys.stderr = _nowhere()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    if no_result:
        return "error: stdout is closed: there is nowhere to write the answer; nothing was tried"
    return None


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123


def _open_null(descriptor: int) -> None:
    """Put the null device where a closed descriptor was."""
    null = os.open(os.devnull, os.O_RDWR)
    if null != descriptor:
        os.dup2(null, descriptor)
        os.close(null)


def decoded(arguments: Sequence[str]) -> list[str] | str:
    """Return the command line as text, or its problem.

    Under an ASCII locale Python hands on bytes that it cannot decode as lone surrogates; they are read as UTF-8 here.
    """
    texts = []
    for argument in arguments:
        try:
            texts.append(os.fsencode(argument).decode("utf-8"))
        except UnicodeDecodeError:
            return f"error: the argument {os.fsencode(argument)!r} is not UTF-8"
    return texts


def flush_result(code: int) -> int:
    """Write out what is buffered; return the exit code, which is never 0 for an answer that was not written."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # ``constitution releases | head -1``: the reader has what it wanted
        return ExitCode.NO_READER
    except (OSError, ValueError) as error:
        return unwritten(error, code)
    return code


def unwritten(error: OSError | ValueError, code: int) -> int:
    """Say that the answer could not be written; return the exit code."""
    from constitution_client.output import progress

    reason = error.strerror if isinstance(error, OSError) else str(error)
    progress(f"error: the answer could not be written to stdout: {reason}")
    sys.stdout = _nowhere()  # what is still buffered fails no second time
    return code or ExitCode.REFUSED
