"""Waits until a server that a benchmark has started takes connections."""

import socket
import subprocess
import time

from bench.runs import BenchError


def until_it_listens(server: "subprocess.Popen[bytes]", port: int) -> None:
    """Return when the port takes a connection.

    Raises:
        BenchError: the server ended, or took none for 30 s.
    """
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise BenchError("a server that is measured against did not start")
