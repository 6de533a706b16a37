"""Reads a file whose name came from somewhere: regular files only, and no more than a limit."""

import os
import stat
from pathlib import Path

from constitution.errors import InvalidRequestError


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
    except OSError as error:
        raise InvalidRequestError(f"{path} cannot be read: {error.strerror}", hint=hint) from error
    if len(data) > limit:
        raise InvalidRequestError(f"{path} is larger than {limit} bytes", hint=hint)
    return data
