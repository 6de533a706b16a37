"""Unpacks one package of Debian or Ubuntu into the cache, as anybody: no root, nothing is installed.

apt keeps its lists, its downloads and its settings for this in a folder of its own, and takes the machine's sources and
keys: it verifies what it downloads as it does for the system. Sources: apt.conf(5), apt-get(8), dpkg-deb(1).
"""

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from deploy.embedded.server import ServerError, guarded

PROGRAMS = ("apt-get", "apt-cache", "dpkg-deb")
TIMEOUT_S = 120  # of each command; on a working network the slowest took 5 s
RETRIES = 2  # of each download, by apt


def has_apt() -> bool:
    """Whether this machine is one whose packages can be had."""
    return all(shutil.which(program) for program in PROGRAMS)


class DebianPackages:
    """The packages that this machine's sources offer.

    Args:
        folder: where apt keeps its state; a folder of the caller's that nobody else uses.
        environment: of the programs, with the user's own proxy.
        log: takes what they print.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], log: Path) -> None:
        self._folder = folder
        self._environment = {**environment, "LC_ALL": "C"}
        self._log = log
        for part in ("lists/partial", "cache/archives/partial"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        self._configuration = folder / "apt.conf"
        self._configuration.write_text(
            f'Dir::State::Lists "{_escaped(folder / "lists")}";\n'
            f'Dir::Cache "{_escaped(folder / "cache")}";\n'
            'APT::Sandbox::User "root";\n'  # as root: else apt drops to a user who cannot write here; else no effect
            f'Acquire::Retries "{RETRIES}";\n'
            # Other people's hooks are about the system's own lists, which are not touched here.
            + "".join(f"#clear APT::Update::{hook};\n" for hook in ("Pre-Invoke", "Post-Invoke", "Post-Invoke-Success"))
        )

    def update(self) -> None:
        """Download the lists of what there is.

        A source that does not answer is left out, as apt does it: :meth:`candidate` says whether the others suffice.

        Raises:
            ServerError: a source's signature is not good.
        """
        self._run("apt-get", "-qq", "update")

    def candidate(self, name: str) -> str | None:
        """The version that would be taken; None if no source that answered has one."""
        for line in self._run("apt-cache", "policy", name).splitlines():
            key, _, value = line.strip().partition(": ")
            if key == "Candidate":
                return None if value == "(none)" else value
        return None

    def unpack(self, name: str, target: Path) -> None:
        """Download a package and unpack its files below ``target``; none of its scripts runs.

        Raises:
            ServerError: it cannot be had.
        """
        with tempfile.TemporaryDirectory(dir=self._folder) as downloads:
            self._run("apt-get", "-qq", "download", name, cwd=Path(downloads))
            for file in Path(downloads).glob("*.deb"):
                self._run("dpkg-deb", "--extract", str(file), str(target))

    def _run(self, program: str, *arguments: str, cwd: Path | None = None) -> str:
        options = () if program == "dpkg-deb" else ("--config-file", str(self._configuration))
        command = guarded((program, *options, *arguments), signal.SIGKILL)
        with self._log.open("a") as log:
            try:
                done = subprocess.run(
                    command, env=self._environment, cwd=cwd or self._folder, stdout=subprocess.PIPE, stderr=log,
                    check=False, text=True, timeout=TIMEOUT_S,
                )  # fmt: skip
            except subprocess.TimeoutExpired as error:
                raise ServerError(
                    f"{program} {arguments[0]} did not end within {TIMEOUT_S} s; see {self._log}"
                ) from error
            log.write(done.stdout)
        if done.returncode != 0:
            raise ServerError(
                f"{program} {' '.join(arguments)} failed with exit code {done.returncode}; see {self._log}"
            )
        return done.stdout


def _escaped(path: Path) -> str:
    """A path as a value of apt's configuration, which has no escape for a quotation mark."""
    text = str(path)
    if '"' in text or "\n" in text:
        raise ServerError(f"apt cannot keep its state in {text!r}: its settings cannot name a folder with such a name")
    return text
