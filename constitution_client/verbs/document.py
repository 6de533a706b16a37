"""Verbs about documents before they are signed: draft, diff."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from constitution_client.output import JsonOption, result

if TYPE_CHECKING:
    from constitution.document import Constitution

_SOURCE_HELP = "A file, a checksum (sha256:…), 'current' (what is live), or 'none'."


def draft(
    *,
    version: Annotated[str, typer.Option("--version", help="x.y.z, higher than every version that was ever live.")],
    out: Annotated[Path, typer.Option("--out", help="The new file.")],
    template: Annotated[
        str, typer.Option("--template", help="An example (see below), or a constitution's file to start from.")
    ] = "tool-use",
    environment: Annotated[
        str | None, typer.Option("--environment", help="Default: of ENVIRONMENT_FILE or the trust policy.")
    ] = None,
    previous: Annotated[
        str | None, typer.Option("--previous", help=f"What it replaces. {_SOURCE_HELP} Default: current.")
    ] = None,
    days: Annotated[int, typer.Option("--days", min=2, max=3650, help="Expires so many days from now.")] = 365,
    effective_at: Annotated[
        str | None, typer.Option("--effective-at", help="Not before, e.g. 2026-12-01T10:00:00Z.")
    ] = None,
    title: Annotated[str | None, typer.Option("--title", help="Default: the template's.")] = None,
    summary: Annotated[str | None, typer.Option("--summary", help="What changes, in a sentence or two.")] = None,
    json: JsonOption = None,
) -> None:
    """Write a draft: a template filled with version, dates, environment and predecessor. Overwrites nothing."""
    raise NotImplementedError


def diff(
    new: Annotated[str, typer.Argument(help=f"The new constitution. {_SOURCE_HELP}")],
    old: Annotated[str, typer.Option("--old", "--against", help=f"What to compare with. {_SOURCE_HELP}")] = "current",
    json: JsonOption = None,
) -> None:
    """Say in words what a constitution would change: rules, principles, default, expiry."""
    asyncio.run(_diff(old, new, json))


async def _diff(old: str, new: str, json: bool | None) -> None:
    from constitution.diff import diff as differences

    lines = differences(await read_source(old), await read_source(new))
    result({"old": old, "new": new, "changes": list(lines)}, lines or ["no difference in meaning"], json)


async def read_source(source: str) -> "Constitution | None":
    """Return the constitution that a person named: by file, by checksum, ``current``, or ``none``.

    Raises:
        ConstitutionError: it does not exist, cannot be read, or is not valid.
    """
    from constitution.document import parse

    data = await read_source_bytes(source)
    return None if data is None else parse(data)


async def read_source_bytes(source: str) -> bytes | None:
    """Return the bytes that a person named; None for ``none`` and where nothing is live."""
    from constitution_client.connections import service_client
    from constitution_client.files import read_bytes
    from constitution_client.settings import settings

    if source == "none":
        return None
    if source == "current":
        async with service_client(settings()) as service:
            live = await service.current()
        return live.document.encode() if live is not None and live.document is not None else None
    if source.startswith("sha256:"):
        async with service_client(settings()) as service:
            return await service.artifact(source)
    return read_bytes(Path(source), what="constitution")


VERBS = {"draft": draft, "diff": diff}
