"""``constitution``: the command line. Registers the verbs, and is the one place where errors become exit codes.

Starting must be cheap (completion and ``--help`` run it), so nothing here or in ``verbs`` imports pydantic, httpx,
Temporal or Sigstore before the verb that needs it runs.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from constitution_client.exit import leave
from constitution_client.exit_codes import EXIT_HELP, ExitCode
from constitution_client.output import progress, result
from constitution_client.streams import UNWRITTEN, decoded, flush_result, prepare, unwritten
from constitution_client.verbs import board, doctor, document, drill, releases, rollback, runs, service, trust, watch

app = typer.Typer(
    name="constitution",
    help="Change the signed constitution of a fleet of AI agents: draft, sign, push, update, approve, watch, roll "
    f"back.\n\n{EXIT_HELP}",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for family in (trust, document, service, releases, runs, rollback, board, doctor, drill):
    for name, verb in family.VERBS.items():
        app.command(name)(verb)
app.add_typer(watch.app, name="watch")


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        result({"version": version("constitution-runbook")}, [f"constitution {version('constitution-runbook')}"], None)
        raise typer.Exit


@app.callback()
def _root(
    env_file: Annotated[
        Path | None,
        typer.Option(
            "--env-file",
            help="Read settings that are not in the environment from this file, e.g. var/stack.env "
            "(env: CONSTITUTION_ENV_FILE).",
        ),
    ] = None,
    version: Annotated[  # noqa: ARG001 - answered by its callback
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    from constitution_client.context import use_env_file

    use_env_file(env_file)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (``exit_codes.ExitCode``); prints, never raises.

    Args:
        arguments: the command line without the program's name; default: that of this process.
    """
    try:
        app(args=list(sys.argv[1:] if arguments is None else arguments), prog_name="constitution")
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
        progress(problem or str(typed))
        leave(ExitCode.USAGE)
    leave(flush_result(run(typed)))
