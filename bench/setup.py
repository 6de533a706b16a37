"""``make demo`` on a clean clone: cold, with every cache empty, and warm, in a second clean clone with those caches.

What stays of the machine: its Python and shared libraries, its package indexes, and whatever they cache themselves.
"""

import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from bench.machine import CHECKOUT
from bench.results import measuring
from bench.runs import BenchError
from deploy.demo.screen import Screen

OWN: Final = ("VIRTUAL_ENV", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "KEEP", "DEMO_STARTED")
"""What this process got from the make and the virtual environment that started it."""
CACHES: Final = {
    "XDG_CACHE_HOME": "xdg",
    "XDG_DATA_HOME": "data",
    "UV_CACHE_DIR": "uv",
    "PIP_CACHE_DIR": "pip",
    "GOPATH": "go",
    "GOCACHE": "go-build",
    "M2_REPO": "maven",
}
TIMEOUT_S: Final = 1800.0


def measure(screen: Screen) -> None:
    """Run the demo cold and warm; store ``setup`` with both reports."""
    scratch = Path(tempfile.mkdtemp(prefix="bench-setup-"))
    try:
        with measuring("setup") as result:
            for state in ("cold", "warm"):
                result[state] = _demo(scratch, state, screen)
            result["command"] = "git clone … && make demo, with " + ", ".join(CACHES) + " in empty folders"
    finally:
        _delete(scratch)


def _demo(scratch: Path, state: str, screen: Screen) -> dict[str, Any]:
    clone = scratch / state
    began = time.monotonic()
    subprocess.run(  # noqa: S603 - git clone of ourselves
        ["git", "clone", "--quiet", "--no-hardlinks", str(CHECKOUT), str(clone)],  # noqa: S607 - the user's own git
        check=True,
    )
    log = scratch / f"{state}.log"
    with screen.timed(f"{state}: make demo"), log.open("wb") as output:
        done = subprocess.run(
            ["make", "demo"],  # noqa: S607 - the user's own make
            cwd=clone, env=_environment(scratch), stdout=output, stderr=output, stdin=subprocess.DEVNULL,
            timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
    wall = time.monotonic() - began
    if done.returncode != 0:
        raise BenchError(
            f"make demo, {state}, exited with {done.returncode}: {log.read_text(errors='replace')[-2000:]}"
        )
    report = json.loads((clone / "var" / "demo" / "report.json").read_text())
    return {
        "wall_s": round(wall, 1),
        "setup_s": report["setup_s"],
        "total_s": report["total_s"],
        "timings": report["timings"],
        "runs": [{name: run[name] for name in ("version", "outcome", "duration_s")} for run in report["runs"]],
        "cache_mib": round(_size(scratch / "caches") / 2**20),
    }


def _environment(scratch: Path) -> dict[str, str]:
    """Return the user's environment (package indexes, proxies), with empty folders for all that is kept of packages."""
    given = {name: value for name, value in os.environ.items() if name not in OWN}
    for name, folder in CACHES.items():
        path = scratch / "caches" / folder
        path.mkdir(parents=True, exist_ok=True)
        given[name] = str(path)
    return given


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _delete(folder: Path) -> None:
    """Delete all of it; Go keeps its modules read-only."""
    for path in folder.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)
    shutil.rmtree(folder)
