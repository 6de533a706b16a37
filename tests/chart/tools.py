"""Programs of the dependency group `chart`."""

import sys
from pathlib import Path


def tool(name: str) -> str:
    """Return a program of this environment."""
    found = Path(sys.executable).with_name(name)
    assert found.exists(), f"{name} is missing: make test-chart installs it"
    return str(found)
