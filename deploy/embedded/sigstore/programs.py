"""Builds the programs of the private Sigstore from one pinned Go module, once, into the cache.

``module/`` holds `go.mod` and `go.sum`, and two short mains of ours (why: docs/adr/0021-private-sigstore.md).
"""

import hashlib
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

MODULE = Path(__file__).with_name("module")
# Program -> package. Two upstream packages are both called `posix`.
PROGRAMS = {
    "fulcio": "./fulcio",
    "timestamps": "./timestamps",
    "ctlog": "github.com/transparency-dev/tesseract/cmd/tesseract/posix",
    "rekor": "github.com/sigstore/rekor-tiles/v2/cmd/rekor-server/posix",
}


def programs(directory: StackDirectory, say: Callable[[str], None]) -> Path:
    """Return the folder of the programs, built once per state of the module; five minutes the first time.

    Args:
        directory: whose log takes the compiler's output.
        say: called with one line of progress.

    Raises:
        ServerError: the build failed; the text names the log.
    """
    sources = sorted(path for path in MODULE.rglob("*") if path.suffix in {".go", ".mod", ".sum"})
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    name = f"sigstore-{digest}-{platform.machine()}"

    def build(target: Path) -> None:
        log = directory.log("sigstore-build")
        environment = os.environ | base_environment(directory)
        go = go_toolchain(say, environment)
        environment |= {"GOFLAGS": "-buildvcs=false -mod=readonly -trimpath", "GOTOOLCHAIN": "local", "GOWORK": "off"}
        for program, package in PROGRAMS.items():
            say(f"building {program} of the private Sigstore (log: {log})")
            arguments = ("nice", go, "build", "-ldflags=-s -w", "-o", str(target / program), package)
            with log.open("a") as output:
                done = subprocess.run(
                    guarded(arguments, signal.SIGKILL),
                    check=False,
                    env=environment,
                    cwd=MODULE,
                    stdout=output,
                    stderr=output,
                )
            if done.returncode != 0:
                raise ServerError(f"{package} was not built: see {log}")

    return item(name, build)
