"""Servers that the user already runs: given by their settings, they are used instead of ours.

A stack remembers them, so that it never starts an empty server of its own in the place of one that holds the data.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from deploy.embedded.server import ServerError
from deploy.embedded.stack_directory import write_private

# Server -> its settings; the first one decides whether the user brings it, all that are given are passed on.
REPLACED_BY = {
    "temporal": (
        "TEMPORAL_ADDRESS",
        "TEMPORAL_NAMESPACE",
        "TEMPORAL_API_KEY",
        "TEMPORAL_TLS",
        "TEMPORAL_TLS_CLIENT_CERT_PATH",
        "TEMPORAL_TLS_CLIENT_KEY_PATH",
        "TEMPORAL_TLS_SERVER_CA_CERT_PATH",
        "TEMPORAL_TLS_SERVER_NAME",
        "TEMPORAL_UI_URL",
    ),
    "postgres": ("DATABASE_URL", "DATABASE_READER_URL", "DATABASE_MIGRATION_URL"),
    "valkey": ("REDIS_URL",),
    "kafka": (
        "KAFKA_BOOTSTRAP_SERVERS",
        "KAFKA_USERNAME",
        "KAFKA_PASSWORD",
        "KAFKA_SASL_MECHANISM",
        "KAFKA_SECURITY_PROTOCOL",
        "KAFKA_CERTIFICATE_FILE",
        "KAFKA_CERTIFICATE_KEY_FILE",
        "KAFKA_TOKEN_URL",
        "KAFKA_TOKEN_SCOPE",
        "KAFKA_TOKEN_EXTENSIONS",
    ),
    "prometheus": (
        "PROMETHEUS_URL",
        "PROMETHEUS_TOKEN_FILE",
        "PROMETHEUS_CERTIFICATE_FILE",
        "PROMETHEUS_CERTIFICATE_KEY_FILE",
    ),
    "artifact-store": (
        "ARTIFACT_STORE_URL",
        "AWS_ENDPOINT_URL",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_REGION",
        "AWS_ALLOW_HTTP",
    ),
    "slack-emulator": ("SLACK_BOT_TOKEN", "SLACK_READER_TOKEN", "SLACK_API_URL"),
}

OF_OUR_PROCESSES = ("NAMESPACE", "LOG_LEVEL")


def common_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Which settings of all our own processes the user gives; blank means unset."""
    return {name: environment[name] for name in OF_OUR_PROCESSES if environment.get(name)}


def external_settings(environment: Mapping[str, str], ours: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Which servers the user brings: server name -> its settings as given.

    Args:
        environment: The caller's environment; blank means unset.
        ours: Settings of the stack's own servers. A shell that has read stack.env brings those, not others.
    """
    found = {}
    for server, names in REPLACED_BY.items():
        given = {name: environment[name] for name in names if environment.get(name)}
        if names[0] in given and given[names[0]] != ours.get(names[0]):
            found[server] = given
    return found


class Remembered:
    """The servers of the user that a stack was given, in a file that only its owner reads.

    Args:
        run: The stack's ``run`` directory.
    """

    def __init__(self, run: Path) -> None:
        self._file = run / "external.json"

    def read(self) -> dict[str, dict[str, str]]:
        """Server -> its settings."""
        found: dict[str, dict[str, str]] = {}
        if self._file.exists():
            found = json.loads(self._file.read_text(encoding="utf-8"))
        return found

    def ours(self, settings: Mapping[str, str]) -> dict[str, str]:
        """Of the settings in stack.env, those that are not of the user's servers."""
        theirs = {name for given in self.read().values() for name in given}
        return {name: value for name, value in settings.items() if name not in theirs}

    def take(self, given: Mapping[str, Mapping[str, str]], running: Iterable[str]) -> dict[str, dict[str, str]]:
        """Remember what is given, and return all that is remembered.

        Args:
            given: Server -> its settings, of the caller.
            running: Servers of the stack's own that were started.

        Raises:
            ServerError: One of them would have to be exchanged while others use it.
        """
        known, running = self.read(), set(running)
        for server, settings in given.items():
            first = REPLACED_BY[server][0]
            if server in running:
                raise ServerError(f"{first} names your own {server}, but the stack's own one runs; make down")
            if running and server in known and known[server] != settings:
                raise ServerError(f"the stack runs with another {server} than {first} names now; make down")
        wanted = known | {server: dict(settings) for server, settings in given.items()}
        if wanted != known:
            self._write(wanted)
        return wanted

    def forget(self, servers: Iterable[str]) -> None:
        """Let the stack's own servers take their places again, empty or as they were left."""
        self._write({server: given for server, given in self.read().items() if server not in set(servers)})

    def _write(self, servers: Mapping[str, Mapping[str, str]]) -> None:
        write_private(self._file, json.dumps(servers, indent=1))
