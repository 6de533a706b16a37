"""Prometheus 3, built from its Go module: no package registry ships the binary.

The build takes about two minutes on two cores and is cached. Checksums of all sources come from Go's own
checksum database. Prometheus has no password of its own; it holds no secret and listens on loopback only.
"""

import json
import os
import platform
import signal
import subprocess
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from deploy.embedded.cache import item
from deploy.embedded.go import go_toolchain
from deploy.embedded.server import Command, Server, ServerError, base_environment, guarded

MODULE = "github.com/prometheus/prometheus/cmd/prometheus"
PROMTOOL = "github.com/prometheus/prometheus/cmd/promtool"
VERSION = "v0.316.0"  # Prometheus 3.16.0 by the numbering of its Go module
TAGS = "remove_all_sd"  # file_sd stays; the clouds' service discoveries would double the build
SCRAPE_INTERVAL = timedelta(seconds=1)

REPORT_EVERY = timedelta(seconds=10)


class Prometheus(Server):
    """Scrapes the consumers, answers the watch."""

    name = "prometheus"
    # The first build on a busy machine.
    start_deadline = timedelta(seconds=90)

    def fetch(self) -> None:
        """Build it."""
        self._binary()

    def _binary(self) -> Path:
        name = f"prometheus-{VERSION}-{platform.machine()}"
        return item(name, self._build) / "prometheus"

    def _build(self, target: Path) -> None:
        # The user's own Go settings (proxy, cache) hold; the mark lets a supervisor end the compiler too.
        build(target, self.site.log("prometheus-build"), self.say, os.environ | base_environment(self.site))

    def targets(self) -> Path:
        """Directory of `*.json` files of targets; Prometheus follows their changes by itself (file_sd)."""
        directory = self.site.data(self.name) / "targets"
        directory.mkdir(exist_ok=True)
        return directory

    async def prepare(self) -> None:
        """Write its configuration."""
        interval = f"{int(SCRAPE_INTERVAL.total_seconds())}s"
        # JSON is YAML.
        configuration = {
            "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
            "scrape_configs": [
                {
                    "job_name": "constitution",
                    "honor_labels": True,  # a consumer names its target itself, by the same name
                    "file_sd_configs": [{"files": [f"{self.targets()}/*.json"], "refresh_interval": "5s"}],
                    # A label "job" in a target's file takes the place of this job's name.
                },
            ],
        }
        self._configuration().write_text(json.dumps(configuration, indent=1))

    def _configuration(self) -> Path:
        return self.site.data(self.name) / "prometheus.yml"

    def command(self) -> Command:
        """The server, without remote control."""
        return Command(
            argv=(
                str(self._binary()),
                f"--config.file={self._configuration()}",
                f"--storage.tsdb.path={self.site.data(self.name) / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.site.port('prometheus')}",
                "--storage.tsdb.retention.time=15d",
                "--log.level=warn",
            )
        )

    async def check(self) -> None:
        """Be ready and answer a query."""
        import httpx  # noqa: PLC0415 - not needed where an outside server is used

        async with httpx.AsyncClient(trust_env=False, timeout=3, base_url=self.urls()["prometheus"]) as client:
            (await client.get("/-/ready")).raise_for_status()
            (await client.get("/api/v1/query", params={"query": "vector(1)"})).raise_for_status()

    def settings(self) -> dict[str, str]:
        """The address, and the directory in which targets are announced."""
        return {"PROMETHEUS_URL": self.urls()["prometheus"], "PROMETHEUS_TARGETS": str(self.targets())}

    def urls(self) -> dict[str, str]:
        """The API's root."""
        return {"prometheus": f"http://127.0.0.1:{self.site.port('prometheus')}"}


def promtool(log: Path, say: Callable[[str], None]) -> Path:
    """Path of Prometheus' own tool of the same version, built where the cache has none. No server needs it.

    Raises:
        ServerError: The build failed.
    """

    def make(target: Path) -> None:
        build(target, log, say, dict(os.environ), PROMTOOL)

    return item(f"promtool-{VERSION}-{platform.machine()}", make) / "promtool"


def build(
    target: Path, log: Path, say: Callable[[str], None], environment: dict[str, str], module: str = MODULE
) -> None:
    """Build the server, or another program of it, into `target`; the compiler's output goes to `log`.

    Raises:
        ServerError: The build failed.
    """
    go = go_toolchain(say, environment)
    say(f"building Prometheus {VERSION} with {go} (about two minutes on two cores; log: {log})")
    environment = environment | {"GOBIN": str(target), "GOFLAGS": "-buildvcs=false", "GOTOOLCHAIN": "local"}
    # -v names each package when it is compiled, which is the progress. Outside of any module (cwd).
    install = ("nice", go, "install", "-v", "-tags", TAGS, f"{module}@{VERSION}")
    command = guarded(install, signal.SIGKILL)  # this thread waits for it: it ends with whoever wanted it
    compiled, told_at = 0, time.monotonic()
    with (
        log.open("a") as output,
        subprocess.Popen(
            command, env=environment, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process,
    ):
        for line in process.stdout or ():
            output.write(line)
            output.flush()
            compiled += not line.startswith("go: ")
            if time.monotonic() - told_at > REPORT_EVERY.total_seconds():
                told_at = time.monotonic()
                say(f"building Prometheus: {compiled} packages compiled" if compiled else "downloading Go modules")
    if process.returncode != 0:
        raise ServerError(f"building Prometheus failed with exit code {process.returncode}; see {log}")
    say("built Prometheus")
