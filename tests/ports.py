"""Ports for the servers that tests start."""

from deploy.embedded.ports import Ports

_PORTS = Ports()


def free_port() -> int:
    """A loopback port that is this test process's own until it ends."""
    return _PORTS.any()
