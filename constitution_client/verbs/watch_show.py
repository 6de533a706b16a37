"""``constitution watch show``: what a watch saw and why it said what it said, from its evidence file."""

import asyncio
import shutil
from pathlib import Path
from typing import Annotated

import typer

from constitution_client.output import JsonOption, progress, result, wants_json

MAX_FILE = 64 * 1024 * 1024  # bytes; constitution-service takes attachments up to 32 MiB


def show(
    run: Annotated[
        str | None,
        typer.Argument(help="A workflow id, an update's change request (CR-142), or the evidence's sha256:… digest."),
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", help="Or: an evidence file, e.g. of the archive.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write an image: NAME.svg or NAME.png.")] = None,
    save: Annotated[Path | None, typer.Option("--save", help="Write the evidence file itself, byte for byte.")] = None,
    json: JsonOption = None,
) -> None:
    """Plot a watch that has ended: the evidence over time, the limit, and what was counted."""
    from constitution.watch.evidence import WatchEvidence
    from constitution_client.files import read_bytes
    from constitution_client.settings import UsageError
    from constitution_client.watch_plot import image, summary, terminal, text_lines

    if (run is None) == (file is None):
        raise UsageError(
            "give a run, or --file", hint="name a workflow id or a change request, or an evidence file with --file"
        )
    digest, data = (
        (None, read_bytes(file, what="evidence", limit=MAX_FILE))
        if file is not None
        else asyncio.run(_fetch(run or ""))
    )
    evidence = WatchEvidence.read(data)
    if out is not None:
        image(evidence, out)
        progress(f"wrote    {out}")
    if save is not None:
        _save(save, data)
        progress(f"wrote    {save}")
    lines = [] if wants_json(json) else text_lines(evidence, digest)
    if lines and evidence.log_e:
        lines += terminal(evidence, shutil.get_terminal_size((100, 24)).columns)
    result(summary(evidence, digest), lines, json)


def _save(path: Path, data: bytes) -> None:
    from constitution_client.settings import UsageError

    try:
        path.write_bytes(data)
    except OSError as error:
        raise UsageError(f"--save {path}: {error.strerror}") from error


async def _fetch(run: str) -> tuple[str, bytes]:
    from constitution_client.connections import run_named, service_client
    from constitution_client.settings import settings, variables
    from constitution_client.watch_history import evidence_of

    configured = settings()
    digest = run
    if not run.startswith("sha256:"):
        _, workflow_id = await run_named(run, configured)
        digest = await evidence_of(workflow_id, variables())
    async with service_client(configured) as service:
        return digest, await service.blob(digest)  # compared with its digest by the client
