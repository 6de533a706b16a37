"""Reads a file whose name came from outside: regular files only, and no more than a limit."""

import os
import stat
from pathlib import Path

from constitution.errors import InvalidRequestError

MAX_SHOWN = 200  # characters of a path in a message


def read_regular(path: Path, limit: int, *, hint: str = "") -> bytes:
    """Return a file's bytes.

    Args:
        path: the file; a link is followed.
        limit: bytes; a larger file is refused.
        hint: what to do when it cannot be read.

    Raises:
        InvalidRequestError: it cannot be read, is no regular file (a pipe would hang its reader), or is too large.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise InvalidRequestError(f"{path} is no regular file", hint=hint)
            data = file.read(limit + 1)
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InvalidRequestError(f"{_shown(path)} cannot be read: {reason}", hint=hint) from error
    if len(data) > limit:
        raise InvalidRequestError(f"{path} is larger than {limit} bytes", hint=hint)
    return data


def read_regular_text(path: Path, limit: int, *, hint: str = "") -> str:
    """Return a file's text, as `read_regular` reads it.

    Raises:
        InvalidRequestError: as `read_regular`, or it is not UTF-8.
    """
    data = read_regular(path, limit, hint=hint)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"{path} is not UTF-8 (byte {error.start})", hint="save it as UTF-8") from error


def _shown(path: Path) -> str:
    text = str(path)
    return text if len(text) <= MAX_SHOWN and text.isprintable() else f"{text[:MAX_SHOWN]!r}…"
