"""One stack's place: its directory, and the ports and passwords that it remembers across restarts."""

import fcntl
import json
import os
import random
import secrets
import socket
from pathlib import Path
from typing import IO

from deploy.embedded.cache import cache_directory

CHECKOUT = Path(__file__).resolve().parents[2]

# Below the kernel's usual range for outgoing connections (32768-60999): while a server is down for a restart
# no client's connection can take its port.
PORTS = range(20000, 30000)


class NoFreePortError(OSError):
    """Every port of the range is taken."""


class Site:
    """Directory, ports and passwords of one stack.

    Ports are reserved by a lock file in the shared cache for as long as this object lives, so that two stacks
    that start at the same moment never choose the same one.

    Args:
        directory: Where everything of this stack lives; made with mode 0700 parts where secrets are kept.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()
        self.run = self.directory / "run"
        self.logs = self.directory / "log"
        self.directory.mkdir(parents=True, exist_ok=True)
        self.run.mkdir(mode=0o700, exist_ok=True)
        self.logs.mkdir(mode=0o700, exist_ok=True)
        self._reservations: dict[int, IO[str]] = {}
        self._state_file = self.run / "state.json"
        self._ports: dict[str, int] = {}
        self._secrets: dict[str, str] = {}
        self.stack_id = secrets.token_hex(8)
        if self._state_file.exists():
            state = json.loads(self._state_file.read_text())
            self._ports, self._secrets = state["ports"], state["secrets"]
            self.stack_id = state["stack_id"]
        else:
            self._save()
        # One supervisor's life: what ends a dead supervisor's processes must not touch its successor's.
        self.mark = f"{self.stack_id}:{secrets.token_hex(8)}"
        # What the servers of this stack yield; the supervisor fills it, later servers read it.
        self.settings: dict[str, str] = {}

    def data(self, name: str) -> Path:
        """The private directory of one server's data, made if it is missing."""
        directory = self.directory / name
        directory.mkdir(mode=0o700, exist_ok=True)
        return directory

    def log(self, name: str) -> Path:
        """The log file of one server."""
        return self.logs / f"{name}.log"

    def secret(self, name: str) -> str:
        """The password called `name`: 192 random bits, made at first use, kept with mode 0600."""
        if name not in self._secrets:
            self._secrets[name] = secrets.token_urlsafe(24)
            self._save()
        return self._secrets[name]

    def port(self, name: str) -> int:
        """The loopback port called `name`: the same one as last time, or a free one.

        Raises:
            NoFreePortError: None is free.
        """
        port = self._ports.get(name)
        if port is not None and (port in self._reservations or self._reserve(port)):
            return port
        for candidate in random.SystemRandom().sample(PORTS, len(PORTS)):
            if candidate not in self._reservations and self._reserve(candidate):
                self._ports[name] = candidate
                self._save()
                return candidate
        raise NoFreePortError(f"no free loopback port between {PORTS.start} and {PORTS.stop}")

    def close(self) -> None:
        """Give the reserved ports back, for a process that goes on after its stack."""
        for handle in self._reservations.values():
            handle.close()
        self._reservations.clear()

    def _reserve(self, port: int) -> bool:
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
        self._reservations[port] = handle
        return True

    def _save(self) -> None:
        state = {"stack_id": self.stack_id, "ports": self._ports, "secrets": self._secrets}
        write_private(self._state_file, json.dumps(state, indent=1))


def write_private(path: Path, text: str) -> None:
    """Write `text` to `path` with mode 0600, all or nothing."""
    partial = path.with_name(path.name + ".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as handle:
        os.fchmod(descriptor, 0o600)
        handle.write(text)
    partial.replace(path)
