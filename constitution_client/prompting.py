"""Asks a person before something is signed in their name."""

import sys

import typer

from constitution_client.settings import UsageError


def confirm(question: str, *, yes: bool) -> None:
    """Ask, on the terminal, unless ``yes``.

    Raises:
        UsageError: there is no terminal to ask on.
        typer.Exit: the person said no (exit code 1; nothing was signed).
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("there is no terminal to ask on", hint="look at what is shown above, then repeat with --yes")
    if not typer.confirm(question, err=True):
        raise typer.Exit(1)
