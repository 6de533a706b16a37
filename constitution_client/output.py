"""Results to stdout, progress to stderr, and nothing else anywhere.

A result is text on a terminal and JSON when piped or with ``--json``; progress and failures are lines on stderr.
Text that came from a server or a file is stripped of control characters before a terminal sees it: an escape
sequence inside a document's title must not repaint the screen of a board member who is about to sign.
"""

import contextlib
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer

from constitution_client.exit_codes import ExitCode

JsonOption = Annotated[
    bool | None,
    typer.Option("--json/--text", help="JSON or text on stdout; default: text on a terminal, JSON when piped."),
]


def wants_json(choice: bool | None) -> bool:
    """Return whether the result is to be JSON: what was asked for, else whether stdout is no terminal."""
    return not sys.stdout.isatty() if choice is None else choice


def clean(text: object) -> str:
    """Return text without control characters (C0, DEL, C1) and without bidirectional overrides; newlines stay."""
    return "".join(
        character if character == "\n" or (character.isprintable() and character not in _BIDI) else "\ufffd"
        for character in str(text).replace("\t", "    ")
    )


_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def one_line(text: object) -> str:
    """Return text on one line: a line break inside it must not look like a line of ours."""
    return " ".join(clean(text).splitlines())


def result(data: Any, lines: Iterable[str], choice: bool | None) -> None:
    """Write a result to stdout.

    Args:
        data: the JSON form; anything ``json`` takes.
        lines: the text form.
        choice: value of ``--json/--text``.
    """
    try:
        _print_result(data, lines, as_json=wants_json(choice))
    except BrokenPipeError:  # raised here only where stdout is not buffered; typer would make a refusal of it
        raise SystemExit(ExitCode.NO_READER) from None


def _print_result(data: Any, lines: Iterable[str], *, as_json: bool) -> None:
    if as_json:
        # An encoding that lacks a character gets the escape that JSON has for it; a question mark would be a lie.
        ascii_only = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
        print(json.dumps(data, indent=2, ensure_ascii=ascii_only))  # noqa: T201 - the command line's own output
    else:
        for line in lines:
            print(clean(line))  # noqa: T201 - the command line's own output


def progress(message: str) -> None:
    """Write one line about what is going on to stderr; a stderr that takes nothing is no reason to stop."""
    with contextlib.suppress(OSError):
        print(clean(message), file=sys.stderr, flush=True)  # noqa: T201 - the command line's own output


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return an aligned plain-text table; columns are as wide as their widest cell."""
    cells = [list(headers), *([clean(cell).replace("\n", " ") for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headers))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
