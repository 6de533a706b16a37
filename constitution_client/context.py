"""Which settings file this process uses. Apart from ``settings`` so that naming it imports no settings library."""

import os
from pathlib import Path

ENV_FILE_VARIABLE = "CONSTITUTION_ENV_FILE"

_named: Path | None = None


def use_env_file(path: Path | None) -> None:
    """Name the file; called once, by the root command. None leaves it to ``CONSTITUTION_ENV_FILE``."""
    global _named  # noqa: PLW0603 - one command line, one process
    _named = path


def env_file() -> Path | None:
    """Return the file to read settings from, if one is named; whether it exists is checked when it is read."""
    if _named is not None:
        return _named
    value = os.environ.get(ENV_FILE_VARIABLE)
    return Path(value) if value else None
