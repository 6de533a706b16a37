"""Waits until a server that a benchmark has started takes connections."""

import socket
import subprocess
import time

from bench.runs import BenchError


def until_it_listens(
    server: "subprocess.Popen[bytes]", port: int, *, host: str = "127.0.0.1", seconds: float = 30
) -> None:
    """Return when the port takes a connection.

    Raises:
        BenchError: the server ended, or took none for so many seconds.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex((host, port)) == 0:
                return
        time.sleep(0.05)
    raise BenchError("a server that is measured against did not start")
