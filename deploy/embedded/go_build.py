"""Builds one program from its Go module into the cache; Go's checksum database vouches for every source."""

import os
import platform
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from deploy.embedded.cache import item
from deploy.embedded.go import go_toolchain
from deploy.embedded.server import ServerError, base_environment, guarded
from deploy.embedded.stack_directory import StackDirectory


def go_program(directory: StackDirectory, say: Callable[[str], None], package: str, version: str) -> Path:
    """Return the program of a Go package, built once per version.

    Args:
        directory: whose log takes the compiler's output.
        say: called with one line of progress.
        package: import path of its main package; the program carries its last part as its name.
        version: of the module, pinned.

    Raises:
        ServerError: the build failed; the text names the log.
    """
    program = package.rsplit("/", 1)[-1]
    name = f"{package.split('/')[1].lower()}-{program}-{version}-{platform.machine()}"

    def build(target: Path) -> None:
        log = directory.log(f"{name}-build")
        environment = os.environ | base_environment(directory)
        go = go_toolchain(say, environment)
        say(f"building {package} {version} (log: {log})")
        environment |= {"GOBIN": str(target), "GOFLAGS": "-buildvcs=false", "GOTOOLCHAIN": "local"}
        command = guarded(("nice", go, "install", f"{package}@{version}"), signal.SIGKILL)
        with log.open("a") as output:  # outside of any module: no go.mod chooses another toolchain
            done = subprocess.run(command, check=False, env=environment, cwd="/", stdout=output, stderr=output)
        if done.returncode != 0 or not (target / program).exists():
            raise ServerError(f"{package} {version} was not built: see {log}")

    return item(name, build) / program
