"""The directory of one embedded stack, with the ports and passwords that it remembers across restarts."""

import json
import os
import secrets
from pathlib import Path

from deploy.embedded.ports import Ports

CHECKOUT = Path(__file__).resolve().parents[2]


class StackDirectory:
    """Directory, ports and passwords of one stack.

    Ports are reserved by a lock file in the shared cache for as long as this object lives, so that two stacks
    that start at the same moment never choose the same one.

    Args:
        directory: Where everything of this stack lives; made with mode 0700 parts where secrets are kept.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory.resolve()
        self.run = self.path / "run"
        self.logs = self.path / "log"
        self.path.mkdir(parents=True, exist_ok=True)
        self.run.mkdir(mode=0o700, exist_ok=True)
        self.logs.mkdir(mode=0o700, exist_ok=True)
        self._reservations = Ports()
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
        # Of one supervisor process: a late guardian of a dead one must not touch its successor's processes.
        self.mark = f"{self.stack_id}:{secrets.token_hex(8)}"
        # What the servers of this stack yield; the supervisor fills it, later servers read it.
        self.settings: dict[str, str] = {}

    def data(self, name: str) -> Path:
        """The private directory of one server's data, made if it is missing."""
        directory = self.path / name
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

    def has_secret(self, name: str) -> bool:
        """Whether the password called `name` has been made."""
        return name in self._secrets

    def port(self, name: str) -> int:
        """The loopback port called `name`: the same one as last time, or a free one.

        Raises:
            NoFreePortError: None is free.
        """
        port = self._ports.get(name)
        if port is None or not self._reservations.reserve(port):
            port = self._ports[name] = self._reservations.any()
            self._save()
        return port

    def close(self) -> None:
        """Give the reserved ports back, for a process that goes on after its stack."""
        self._reservations.close()

    def _save(self) -> None:
        state = {"stack_id": self.stack_id, "ports": self._ports, "secrets": self._secrets}
        write_private(self._state_file, json.dumps(state, indent=1))


def write_private(path: Path, text: str) -> None:
    """Write `text` to `path` with mode 0600, all or nothing."""
    partial = path.with_name(path.name + ".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
        os.fchmod(descriptor, 0o600)
        handle.write(text)
    partial.replace(path)
