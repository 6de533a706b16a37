"""A container of the image, by buildah without a daemon: each role is a process of the machine's own network."""

import os
import shlex
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from deploy.embedded.server import guarded

IMAGE = os.environ.get("IMAGE", "localhost/constitution-runbook")
USER = 10001
STOPS_WITHIN = 40.0  # seconds
_PROGRAM = "buildah"
_BUILDAH = {"BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "vfs", "PATH": os.environ["PATH"], "HOME": "/root"}
# Reads the settings from a file, so that no password is in an argument list; the role takes the shell's place.
_WITH_SETTINGS = '. "$0"; exec role "$@"'


class Container:
    """One container; every role runs in it.

    Args:
        folder: is mounted at its own path, and is the only place where roles may write.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.name = _buildah("from", IMAGE).strip()

    def remove(self) -> None:
        """Delete it."""
        _buildah("rm", self.name)

    def run(self, *command: str, code: int = 0) -> str:
        """Run a command of the image to its end and return what it printed."""
        done = subprocess.run(  # noqa: S603
            self._command(command), env=_BUILDAH, capture_output=True, text=True, check=False, timeout=600
        )
        assert done.returncode == code, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout

    def role(self, settings: Mapping[str, str], *command: str, code: int = 0) -> str:
        """Run a role that ends by itself."""
        return self.run("sh", "-c", _WITH_SETTINGS, str(self._settings(command[0], settings)), *command, code=code)

    @contextmanager
    def running(self, role: str, name: str, settings: Mapping[str, str], log: Path) -> Iterator["RunningRole"]:
        """Run a role until the block ends; SIGTERM, as Kubernetes sends it, must end it with exit code 0."""
        command = self._command(("sh", "-c", _WITH_SETTINGS, str(self._settings(name, settings)), role))
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603
                guarded(tuple(command), signal.SIGTERM), env=_BUILDAH, stdout=output, stderr=subprocess.STDOUT
            )
        running = RunningRole(process, log)
        try:
            yield running
        finally:
            code = running.stop()
        assert code == 0, f"{name} ended with {code}: {log.read_text(encoding='utf-8')[-3000:]}"

    def _settings(self, name: str, settings: Mapping[str, str]) -> Path:
        file = self._folder / f"{name}.settings"
        file.write_text(
            "".join(f"export {key}={shlex.quote(value)}\n" for key, value in settings.items()), encoding="utf-8"
        )
        os.chown(file, USER, USER)
        file.chmod(0o600)
        return file

    def _command(self, command: tuple[str, ...]) -> list[str]:
        mounted = ("--volume", f"{self._folder}:{self._folder}:rw")
        return [
            "buildah",
            "run",
            "--isolation",
            "chroot",
            "--user",
            f"{USER}:{USER}",
            *mounted,
            self.name,
            "--",
            *command,
        ]


class RunningRole:
    """A role that runs.

    Args:
        process: buildah's, which ends as the role does.
        log: what both print.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self._process = process
        self.log = log

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def own(self) -> list[psutil.Process]:
        """The role's processes: as the image's user, and not buildah's own, whose end kills what they started."""
        found = psutil.Process(self._process.pid).children(recursive=True) if self.alive else []
        return [process for process in found if process.uids().real == USER and "python" in process.name()]

    def megabytes(self) -> float:
        """Memory that is resident, of all its processes."""
        return float(sum(process.memory_info().rss for process in self.own())) / 1e6

    def stop(self) -> int:
        """Send SIGTERM to the role; kill what is left. Returns the exit code."""
        for process in self.own():
            process.terminate()
        try:
            return self._process.wait(STOPS_WITHIN)
        except subprocess.TimeoutExpired:
            for process in self.own():
                process.kill()
            self._process.terminate()
            return self._process.wait(10) or -1


def _buildah(*arguments: str) -> str:
    done = subprocess.run(  # noqa: S603
        [_PROGRAM, *arguments], env=_BUILDAH, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
