"""The verbs of ``constitution``, as typer knows them.

Starting must be cheap (completion runs it), so nothing here or in ``verbs`` imports pydantic, httpx, Temporal or
Sigstore before the verb that needs it runs.
"""

from pathlib import Path
from typing import Annotated

import typer

from constitution_client.exit_codes import EXIT_HELP
from constitution_client.output import result
from constitution_client.verbs import (
    archive,
    audit,
    board,
    doctor,
    document,
    drill,
    receipt,
    releases,
    rollback,
    runs,
    service,
    trust,
    trust_passkey,
    trust_show,
    trust_version,
    watch,
)

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
trust_show.app.command("passkey")(trust_passkey.passkey)
trust_show.app.command("new")(trust_version.new)
trust_show.app.command("sign")(trust_version.sign)
trust_show.app.command("verify")(trust_version.verify)
trust_show.app.command("install")(trust_version.install)
app.add_typer(trust_show.app, name="trust")
app.add_typer(audit.app, name="audit")
app.add_typer(receipt.app, name="receipt")
app.add_typer(archive.app, name="archive")


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
