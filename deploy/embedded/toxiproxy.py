"""Toxiproxy, built from its Go module: stands between our processes and a server, and breaks the network there.

Its control API has no password; it listens on loopback, and only stacks made for fault tests start it.
"""

from pathlib import Path

from deploy.embedded.go_build import go_program
from deploy.embedded.server import Command, Server

PACKAGE = "github.com/Shopify/toxiproxy/v2/cmd/server"
VERSION = "v2.5.0"


class Toxiproxy(Server):
    """A TCP proxy with faults on demand; proxies are made through its API and end with it."""

    name = "toxiproxy"

    def fetch(self) -> None:
        """Build it: some ten seconds."""
        self._binary()

    def _binary(self) -> Path:
        return go_program(self.directory, self.say, PACKAGE, VERSION)

    def command(self) -> Command:
        """The control API on loopback."""
        address = ("-host", "127.0.0.1", "-port", str(self.directory.port(self.name)))
        return Command(argv=(str(self._binary()), *address), environment={"LOG_LEVEL": "warn"})

    async def check(self) -> None:
        """List its proxies."""
        from deploy.embedded.loopback import loopback  # noqa: PLC0415 - not needed by a stack without it

        async with loopback(3) as client:
            (await client.get(f"{self.urls()['toxiproxy']}/proxies")).raise_for_status()

    def settings(self) -> dict[str, str]:
        """The control API's address."""
        return {"TOXIPROXY_URL": self.urls()["toxiproxy"]}

    def urls(self) -> dict[str, str]:
        """The control API."""
        return {"toxiproxy": f"http://127.0.0.1:{self.directory.port('toxiproxy')}"}
