"""The file of settings, `stack.env`: KEY=VALUE lines that a shell, python-dotenv and this module read alike."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from deploy.embedded.site import write_private

# What no reader of such files takes for something else; URLs stay as they are.
_PLAIN = re.compile(r"[\w@%+=:,./?~-]*", re.ASCII)


def write_settings(file: Path, settings: Mapping[str, str]) -> None:
    """Write the settings, mode 0600, all or nothing; a value with a space or the like is put in quotes."""
    quoted = {name: value if _PLAIN.fullmatch(value) else shlex.quote(value) for name, value in settings.items()}
    write_private(file, "".join(f"{name}={value}\n" for name, value in sorted(quoted.items())))


def read_settings(file: Path) -> dict[str, str]:
    """Read them back; none where there is no file."""
    if not file.exists():
        return {}
    pairs = (line.split("=", 1) for line in file.read_text().splitlines())
    return {name: "".join(shlex.split(value)) for name, value in pairs}
