"""Importing the workflows loads no driver: they must not even be able to do I/O."""

import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
DRIVERS = (
    "asyncpg",
    "redis",
    "confluent_kafka",
    "slack_sdk",
    "dulwich",
    "obstore",
    "prometheus_api_client",
    "httpx",
    "fastapi",
    "pydantic_settings",
    "adapters",
    "constitution_client",
    "services",
)
SCRIPT = "import sys, {module}; print(' '.join(n for n in {drivers!r} if n in sys.modules))"


@pytest.mark.parametrize("module", ["workflows.update", "workflows.rollback", "workflows.guard"])
def test_importing_a_workflow_loads_no_driver(module: str) -> None:
    code = SCRIPT.format(module=module, drivers=DRIVERS)
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", code], cwd=CHECKOUT, check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
