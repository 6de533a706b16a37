"""``constitution --help`` without typer: the text that typer writes 80 columns wide, kept in ``help.txt``.

``python -m constitution_client.help_text`` writes that file anew; a test compares the two.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH = 80  # columns
_FILE = os.path.join(os.path.dirname(__file__), "help.txt")  # noqa: PTH118, PTH120 - pathlib costs a tenth of the start


def print_help(arguments: Sequence[str]) -> bool:
    """Print the list of verbs if that is all that was asked for, and this stream can show it; return whether it was."""
    if list(arguments) not in (["--help"], ["-h"]) or not _fits():
        return False
    with open(_FILE, encoding="utf-8") as file:  # noqa: PTH123 - as above
        sys.stdout.write(file.read())
    return True


def _fits() -> bool:
    """Return whether stdout takes the frame's characters, and is no narrower than the text."""
    if (sys.stdout.encoding or "").lower().replace("-", "") != "utf8":
        return False
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal():
        return int(columns) >= WIDTH
    try:
        return not sys.stdout.isatty() or os.get_terminal_size(sys.stdout.fileno()).columns >= WIDTH
    except (OSError, ValueError):
        return False


def rendered() -> str:
    """Return the text as typer writes it, without colours."""
    import subprocess

    code = "from constitution_client.commands import app; app(['--help'], prog_name='constitution')"
    clean = {name: value for name, value in os.environ.items() if name not in {"FORCE_COLOR", "TERMINAL_WIDTH"}}
    done = subprocess.run(  # noqa: S603 - this interpreter and the text above
        [sys.executable, "-c", code],
        env=clean | {"COLUMNS": str(WIDTH), "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8", "TERM": "dumb"},
        capture_output=True,
        encoding="utf-8",
        check=True,
        timeout=60,
    )
    return "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())


if __name__ == "__main__":
    with open(_FILE, "w", encoding="utf-8") as file:  # noqa: PTH123 - as above
        file.write(rendered())
