"""Reads the files that a person names on the command line, and writes without ever destroying anything.

Every read has a size limit before a byte is parsed, and takes regular files only (a FIFO or a device would hang or
never end). A file that holds a secret is refused when others may read it.
"""

import os
import shlex
import stat
import tempfile
from pathlib import Path

from constitution.errors import ContentError, InvalidRequestError, UntrustedError

MAX_FILE = 1024 * 1024  # bytes; documents and signatures are refused above it anyway (docs/architecture.md)


class FileRefusedError(ContentError):
    """A file cannot be read, or may not be written."""

    code = "file-refused"


def read_bytes(path: Path, *, what: str, limit: int = MAX_FILE, secret: bool = False) -> bytes:
    """Return a file's bytes.

    Args:
        path: the file.
        what: its role, for messages, e.g. ``signature``.
        limit: bytes; a larger file is refused.
        secret: refuse the file when group or others may read it.

    Raises:
        FileRefusedError: it does not exist, is no regular file, is too large, or cannot be read.
        UntrustedError: it should be secret and is not.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise FileRefusedError(f"{what} {path}: {reason}", hint=f"ls -l {shlex.quote(str(path.parent))}") from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise FileRefusedError(f"{what} {path} is no regular file")
    with os.fdopen(descriptor, "rb") as file:
        if secret and mode & 0o077:
            raise UntrustedError(
                f"{what} {path} can be read by others (mode {stat.S_IMODE(mode):04o})",
                hint=f"chmod 600 {shlex.quote(str(path))}  # and think about whether the key is still yours alone",
            )
        try:
            data = file.read(limit + 1)
        except OSError as error:
            raise FileRefusedError(f"{what} {path}: {error.strerror}") from error
    if len(data) > limit:
        raise FileRefusedError(f"{what} {path} is larger than {limit} bytes")
    return data


def read_text(path: Path, *, what: str, secret: bool = False) -> str:
    """Return a file's text; arguments as of `read_bytes`.

    Raises:
        FileRefusedError: as `read_bytes`, or it is not UTF-8.
        UntrustedError: it should be secret and is not.
    """
    data = read_bytes(path, what=what, secret=secret)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FileRefusedError(f"{what} {path} is not UTF-8 (byte {error.start})", hint="save it as UTF-8") from error


def write_new(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a file whole or not at all, and never over another one.

    Args:
        path: the new file; its folder must exist.
        data: its bytes.
        mode: permission bits.

    Raises:
        InvalidRequestError: the file exists.
        FileRefusedError: it cannot be written.
    """
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.") as temporary:
            os.fchmod(temporary.fileno(), mode)
            temporary.write(data)
            temporary.flush()
            os.fsync(temporary.fileno())
            os.link(temporary.name, path)  # unlike rename, fails where the name is taken
    except FileExistsError as error:
        raise InvalidRequestError(
            f"{path} exists and is not overwritten", hint="name another file with --out, or move it away"
        ) from error
    except OSError as error:
        raise FileRefusedError(f"cannot write {path}: {error.strerror}") from error


def write_over(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, in the place of one that may be there. A reader sees the old or the new one.

    Raises:
        FileRefusedError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as temporary:
                os.fchmod(temporary.fileno(), 0o644)
                temporary.write(data)
                temporary.flush()
                os.fsync(temporary.fileno())
            Path(name).replace(path)
        except BaseException:  # whatever ends the write, also an interrupt, must not leave half a file
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise FileRefusedError(f"cannot write {path}: {error.strerror}") from error
