"""A port is given to one process at a time, and never to two."""

import socket
import subprocess
import sys

from deploy.embedded.ports import PORTS, Ports
from deploy.embedded.stack_directory import CHECKOUT

RESERVE = "from deploy.embedded.ports import Ports; print(Ports().reserve({port}))"


def elsewhere(port: int) -> str:
    """Whether another process could have the port."""
    script = [sys.executable, "-c", RESERVE.format(port=port)]
    return subprocess.run(script, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603 - our own code


def test_a_reserved_port_is_nobody_else_s_until_it_is_given_back() -> None:
    ports = Ports()
    port = ports.any()
    assert port in PORTS
    assert ports.reserve(port)
    assert elsewhere(port) == "False"
    assert not Ports().reserve(port)
    ports.close()
    assert elsewhere(port) == "True"


def test_a_port_on_which_somebody_listens_is_not_given() -> None:
    ports = Ports()
    port = ports.any()
    ports.close()
    with socket.create_server(("127.0.0.1", port)):
        assert not Ports().reserve(port)


def test_many_ports_of_one_process_differ() -> None:
    ports = Ports()
    given = [ports.any() for _ in range(200)]
    assert len(set(given)) == 200
    ports.close()
