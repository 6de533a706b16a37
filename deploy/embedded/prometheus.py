"""Prometheus and promtool: the distribution's own package on Debian and Ubuntu, elsewhere built from the Go module.

The package takes 6 seconds, and apt verifies it; the build takes about two minutes on two cores, and Go's checksum
database vouches for its sources. Both are unpacked into the cache: no root, nothing is installed. Prometheus has no
password of its own; it holds no secret and listens on loopback only.
"""

import json
import os
import platform
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from deploy.embedded.cache import item
from deploy.embedded.debian_package import DebianPackages, has_apt
from deploy.embedded.go import go_toolchain
from deploy.embedded.server import Command, Server, ServerError, base_environment, guarded

MODULES = ("github.com/prometheus/prometheus/cmd/prometheus", "github.com/prometheus/prometheus/cmd/promtool")
VERSION = "v0.316.0"  # Prometheus 3.16.0 by the numbering of its Go module
TAGS = "remove_all_sd"  # file_sd stays; the clouds' service discoveries would double the build
SCRAPE_INTERVAL = timedelta(seconds=1)

OLDEST_PACKAGE = (2, 42)  # of Debian 12, the oldest that our tests ran with; an older one is not taken

REPORT_EVERY = timedelta(seconds=10)


class Prometheus(Server):
    """Scrapes the consumers, answers the watch."""

    name = "prometheus"
    # The first build on a busy machine.
    start_deadline = timedelta(seconds=90)

    def fetch(self) -> None:
        """Unpack or build it."""
        self._binary()

    def _binary(self) -> Path:
        # The user's own settings (proxies, Go's cache) hold; the mark lets a supervisor end the compiler too.
        environment = os.environ | base_environment(self.directory)
        return programs(self.directory.log("prometheus-package"), self.say, environment) / "prometheus"

    def targets(self) -> Path:
        """Directory of `*.json` files of targets; Prometheus follows their changes by itself (file_sd)."""
        directory = self.directory.data(self.name) / "targets"
        directory.mkdir(exist_ok=True)
        return directory

    async def prepare(self) -> None:
        """Write its configuration; a folder in it is relative to it, for a `*` or `[` above is taken for a pattern."""
        interval = f"{int(SCRAPE_INTERVAL.total_seconds())}s"
        # JSON is YAML.
        configuration = {
            "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
            "scrape_configs": [
                {
                    "job_name": "constitution",
                    "honor_labels": True,  # a consumer names its target itself, by the same name
                    "file_sd_configs": [{"files": [f"{self.targets().name}/*.json"], "refresh_interval": "5s"}],
                    # A label "job" in a target's file takes the place of this job's name.
                },
            ],
        }
        self._configuration().write_text(json.dumps(configuration, indent=1))

    def _configuration(self) -> Path:
        return self.directory.data(self.name) / "prometheus.yml"

    def command(self) -> Command:
        """The server, without remote control."""
        return Command(
            argv=(
                str(self._binary()),
                f"--config.file={self._configuration().name}",
                "--storage.tsdb.path=data",
                f"--web.listen-address=127.0.0.1:{self.directory.port('prometheus')}",
                "--storage.tsdb.retention.time=15d",
                "--log.level=warn",
            ),
            cwd=self.directory.data(self.name),
        )

    async def check(self) -> None:
        """Be ready and answer a query."""
        from deploy.embedded.loopback import loopback  # noqa: PLC0415 - not needed where an outside server is used

        async with loopback(3, self.urls()["prometheus"]) as client:
            (await client.get("/-/ready")).raise_for_status()
            (await client.get("/api/v1/query", params={"query": "vector(1)"})).raise_for_status()

    def settings(self) -> dict[str, str]:
        """The address, and the directory in which targets are announced."""
        return {"PROMETHEUS_URL": self.urls()["prometheus"], "PROMETHEUS_TARGETS": str(self.targets())}

    def urls(self) -> dict[str, str]:
        """The API's root."""
        return {"prometheus": f"http://127.0.0.1:{self.directory.port('prometheus')}"}


def programs(log: Path, say: Callable[[str], None], environment: dict[str, str]) -> Path:
    """The folder that holds ``prometheus`` and ``promtool`` of one version, made where the cache has none.

    Args:
        log: takes what apt and the compiler print.
        say: called with one line of progress.
        environment: of the programs that are run.

    Raises:
        ServerError: neither a package nor the build is to be had.
    """
    if has_apt():
        system = platform.freedesktop_os_release()
        name = f"prometheus-{system['ID']}{system.get('VERSION_ID', '')}-{platform.machine()}"
        try:
            return item(name, lambda target: unpack(target, log, say, environment)) / "usr" / "bin"
        except ServerError as error:
            say(f"no package of {system.get('PRETTY_NAME', system['ID'])} serves: {error}")

    name = f"prometheus-{VERSION}-{platform.machine()}"
    return item(name, lambda target: _build(target, log, say, environment))


def recent_enough(debian_version: str) -> bool:
    """Whether a package's version, such as ``1:2.42.0+ds-5``, is one that our tests ran with, or newer."""
    found = re.match(r"(?:\d+:)?(\d+)\.(\d+)", debian_version)
    return found is not None and (int(found[1]), int(found[2])) >= OLDEST_PACKAGE


def version(program: Path) -> str:
    """The version that a ``prometheus`` or ``promtool`` reports, such as ``2.42.0+ds``."""
    told = subprocess.run([program, "--version"], check=True, capture_output=True, text=True)
    return (told.stdout or told.stderr).split()[2]  # "prometheus, version 2.42.0+ds (branch: …"


def unpack(target: Path, log: Path, say: Callable[[str], None], environment: dict[str, str]) -> None:
    """Put the distribution's package below ``target``.

    Raises:
        ServerError: it cannot be had, is too old, or does not run here.
    """
    with tempfile.TemporaryDirectory() as folder:
        packages = DebianPackages(Path(folder), environment, log)
        packages.update()
        candidate = packages.candidate("prometheus")
        if candidate is None or not recent_enough(candidate):
            wanted = ".".join(map(str, OLDEST_PACKAGE))
            raise ServerError(f"its prometheus is {candidate or 'missing'}, wanted is {wanted} or newer; see {log}")
        say(f"unpacking Prometheus {candidate} from the distribution's package")
        packages.unpack("prometheus", target)
    try:
        version(target / "usr" / "bin" / "prometheus")
    except (OSError, subprocess.SubprocessError) as error:
        raise ServerError(f"its prometheus {candidate} does not run here: {error}") from error


def _build(target: Path, log: Path, say: Callable[[str], None], environment: dict[str, str]) -> None:
    go = go_toolchain(say, environment)
    say(f"building Prometheus {VERSION} with {go} (about two minutes on two cores; log: {log})")
    environment = environment | {"GOBIN": str(target), "GOFLAGS": "-buildvcs=false", "GOTOOLCHAIN": "local"}
    # -v names each package when it is compiled, which is the progress. Outside of any module (cwd).
    install = ("nice", go, "install", "-v", "-tags", TAGS, *(f"{module}@{VERSION}" for module in MODULES))
    command = guarded(install, signal.SIGKILL)  # this thread waits for it: it ends with its caller
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
