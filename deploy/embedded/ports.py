"""Loopback ports that nobody else gets: neither another stack or test that starts now, nor an outgoing connection."""

import fcntl
import random
import socket
from typing import IO

from deploy.bootstrap import cache_directory

# Below the kernel's usual range for outgoing connections (32768-60999): while a server is down for a restart
# no client's connection can take its port.
PORTS = range(20000, 30000)


class NoFreePortError(OSError):
    """Every port of the range is taken."""


class Ports:
    """Ports of one process, each reserved by a lock file in the shared cache until ``close``, or its end."""

    def __init__(self) -> None:
        self._reserved: dict[int, IO[str]] = {}

    def any(self) -> int:
        """Reserve a free port.

        Raises:
            NoFreePortError: None is free.
        """
        for candidate in random.SystemRandom().sample(PORTS, len(PORTS)):
            if candidate not in self._reserved and self.reserve(candidate):
                return candidate
        raise NoFreePortError(f"no free loopback port between {PORTS.start} and {PORTS.stop}")

    def reserve(self, port: int) -> bool:
        """Reserve this port; False if somebody else has it or listens there."""
        if port in self._reserved:
            return True
        directory = cache_directory() / "ports"
        directory.mkdir(exist_ok=True)
        handle = (directory / str(port)).open("w")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                # As servers do: a port whose last connections are in TIME_WAIT is free.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
        except OSError:
            handle.close()
            return False
        self._reserved[port] = handle
        return True

    def close(self) -> None:
        """Give all of them back."""
        for handle in self._reserved.values():
            handle.close()
        self._reserved.clear()
