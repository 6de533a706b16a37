"""The supervisor's control channel: a Unix socket with mode 0600 in a directory with mode 0700.

One request a connection: a JSON line; the answer is JSON lines, `{"progress": …}` any number of times and one
`{"result": …}` or `{"error": …}`. The socket is addressed through a descriptor of its directory
(`/proc/self/fd/N/control.sock`), so that a checkout's path may be longer than the 107 bytes of a socket address.
"""

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAME = "control.sock"
LOCK = "supervisor.lock"  # held by the supervisor while it lives


class NotRunning(ConnectionError):  # noqa: N818 - a state, not an error
    """No supervisor answers for this directory."""


class StackError(Exception):
    """The supervisor refuses or failed; the text says why."""


@contextmanager
def address(run: Path) -> Iterator[str]:
    """A short address of the socket in directory `run`, valid inside the block."""
    descriptor = os.open(run, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{NAME}"
    finally:
        os.close(descriptor)


def listener(run: Path) -> socket.socket:
    """A listening socket in `run`; one that a killed supervisor left is replaced."""
    (run / NAME).unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    previous = os.umask(0o177)
    try:
        with address(run) as path:
            server.bind(path)
    finally:
        os.umask(previous)
    server.listen(16)
    return server


def call(run: Path, request: dict[str, Any], progress: Callable[[dict[str, Any]], None]) -> Any:
    """Send one request and return its result.

    Args:
        run: The stack's `run` directory.
        request: The verb and its arguments.
        progress: Called with each progress message.

    Raises:
        NotRunning: Nobody listens, or the supervisor ended before its answer.
        StackError: It refused.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            with address(run) as path:
                connection.connect(path)
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as lines:
                for line in lines:
                    message = json.loads(line)
                    if "progress" in message:
                        progress(message["progress"])
                    elif "error" in message:
                        raise StackError(message["error"])
                    else:
                        return message["result"]
        except (FileNotFoundError, ConnectionError) as error:
            raise NotRunning(f"no stack runs in {run.parent}") from error
    raise NotRunning(f"the stack in {run.parent} ended before it answered")
