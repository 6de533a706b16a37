"""``constitution``: the way in, and the one place where errors become exit codes.

``constitution --help`` is answered from a file, before typer and rich are imported: they take eight times as long as
the interpreter itself (docs/adr/0019-parts.md). For the same reason nothing here imports ``typing`` or ``pathlib``.
"""

from __future__ import annotations

import sys

from constitution_client.exit import leave
from constitution_client.exit_codes import ExitCode
from constitution_client.help_text import print_help
from constitution_client.streams import UNWRITTEN, decoded, flush_result, prepare, unwritten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (``exit_codes.ExitCode``); prints, never raises.

    Args:
        arguments: the command line without the program's name; default: that of this process.
    """
    typed = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if not print_help(typed):
            from constitution_client.commands import app

            app(args=typed, prog_name="constitution")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(ExitCode.REFUSED if end.code else ExitCode.OK)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        return ExitCode.NO_READER  # leave() keeps the flush from failing too
    except Exception as error:  # noqa: BLE001 - the outermost frame: every error becomes text and an exit code here
        if isinstance(error, OSError) and error.errno in UNWRITTEN:
            return unwritten(error, ExitCode.REFUSED)
        from constitution_client.failures import explain

        return explain(error)
    return ExitCode.OK


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and leave the process by ``constitution_client.exit.leave``."""
    problem = prepare()
    typed = decoded(sys.argv[1:] if arguments is None else arguments)
    if problem or isinstance(typed, str):
        from constitution_client.output import progress

        progress(problem or str(typed))
        leave(ExitCode.USAGE)
    leave(flush_result(run(typed)))
