r"""The file of settings, `stack.env`: KEY=VALUE lines that a shell and python-dotenv read alike.

A folder's name may hold almost anything, and the two differ in how quotes nest and in what `$` means. Double quotes
with `\` and `"` escaped mean the same to both. An escaped `$` does not; but both replace a variable that is unset by
its default, `${A_DOLLAR:-$}`.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values

from deploy.embedded.server import ServerError
from deploy.embedded.stack_directory import write_private

# What no reader of such files takes for something else; URLs stay as they are.
_PLAIN = re.compile(r"[\w@%+=:,./?-]+", re.ASCII)
# A shell runs what is in backticks, python-dotenv cannot hide them from it; lines end at a line break; TOML is UTF-8.
_UNWRITABLE = re.compile("[`\0-\x08\x0a-\x1f\x7f\ud800-\udfff]")
_DOLLAR = "${A_DOLLAR:-$}"


def write_settings(file: Path, settings: Mapping[str, str]) -> None:
    """Write the settings, mode 0600, all or nothing.

    Raises:
        ServerError: a value holds what no such file can.
    """
    write_private(file, "".join(f"{name}={_quoted(name, value)}\n" for name, value in sorted(settings.items())))


def _quoted(name: str, value: str) -> str:
    if _PLAIN.fullmatch(value):
        return value
    if _UNWRITABLE.search(value):
        raise ServerError(
            f"{name} is {value!r}, which cannot be written to stack.env: a backtick, a control character or a byte "
            "that is not UTF-8 is in it; where it is in the name of a folder, rename that folder"
        )
    return '"' + re.sub(r'[\\"]', r"\\\g<0>", value).replace("$", _DOLLAR) + '"'


def read_settings(file: Path) -> dict[str, str]:
    """Read them back; none where there is no file."""
    if not file.exists():
        return {}
    return {name: value or "" for name, value in dotenv_values(file, encoding="utf-8").items()}
