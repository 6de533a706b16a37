"""Verbs about documents before they are signed: draft, diff."""

import asyncio
import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from constitution_client.output import JsonOption, progress, result

if TYPE_CHECKING:
    from constitution.policy.document import Constitution
    from constitution_client.settings import ClientSettings

_SOURCE_HELP = "A file, a checksum (sha256:…), 'current' (what is live), or 'none'."


def draft(
    *,
    version: Annotated[str, typer.Option("--version", help="x.y.z, higher than every version that was ever live.")],
    out: Annotated[Path, typer.Option("--out", help="The new file.")],
    template: Annotated[
        str,
        typer.Option(
            "--template",
            help="An example that ships (tool-use, data-handling, escalation, lockdown), or a file to start from.",
        ),
    ] = "tool-use",
    environment: Annotated[
        str | None, typer.Option("--environment", help="Default: of ENVIRONMENT_FILE or the trust policy.")
    ] = None,
    previous: Annotated[
        str | None,
        typer.Option(
            "--previous",
            help=f"What it replaces. {_SOURCE_HELP} Default: current, where CONSTITUTION_SERVICE_URL is set.",
        ),
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
    from constitution.checksum import checksum_of
    from constitution.policy.draft import fill
    from constitution.release import Previous
    from constitution_client.files import read_bytes, write_new
    from constitution_client.settings import settings
    from constitution_client.verbs.runs import moment

    configured = settings()
    chosen = environment or configured.environment_name()
    replaced = asyncio.run(read_source_bytes(_predecessor(previous, configured)))
    before = None
    if replaced is not None:
        from constitution.policy.document import parse

        before = Previous(version=parse(replaced).version, checksum=checksum_of(replaced))
    now = datetime.now(UTC)
    from_file = "/" in template or template.endswith(".json")
    data = fill(
        read_bytes(Path(template), what="template") if from_file else template,
        version=version,
        environment=chosen,
        issued_at=now,
        expires_at=now + timedelta(days=days),
        previous=before,
        effective_at=moment(effective_at, "--effective-at"),
        title=title,
        summary=summary,
    )
    write_new(out, data)
    result(
        {
            "path": str(out),
            "version": version,
            "environment": chosen,
            "checksum": checksum_of(data),
            "previous": before.model_dump(mode="json") if before else None,
        },
        [
            f"drafted  {out}, version {version} for {chosen}",
            f"checksum {checksum_of(data)} (until a byte is changed)",
            f"replaces {f'{before.version} {before.checksum}' if before else 'nothing: a first release'}",
            f"next: constitution sign {shlex.quote(str(out))}  # edit it first; a maintainer signs",
        ],
        json,
    )


def _predecessor(previous: str | None, configured: "ClientSettings") -> str:
    if previous is not None:
        return previous
    if configured.constitution_service_url is not None:
        return "current"
    from constitution_client.settings import UsageError

    raise UsageError(
        "nothing says what this draft replaces, and CONSTITUTION_SERVICE_URL, where one could ask, is not set",
        hint="--previous none for a first release, or --previous FILE",
    )


def diff(
    new: Annotated[str, typer.Argument(help=f"The new constitution. {_SOURCE_HELP}")],
    old: Annotated[str, typer.Option("--old", "--against", help=f"What to compare with. {_SOURCE_HELP}")] = "current",
    json: JsonOption = None,
) -> None:
    """Say in words what a constitution would change: rules, principles, default, expiry."""
    asyncio.run(_diff(old, new, json))


async def _diff(old: str, new: str, json: bool | None) -> None:
    from constitution.policy.diff import diff as differences
    from constitution.policy.document import parse

    data = await read_source_bytes(new)
    lines = differences(await read_source(old), None if data is None else parse(data))
    if data is not None:
        lines = (*lines, *await _undone_before(data))
    result({"old": old, "new": new, "changes": list(lines)}, lines or ["no difference in meaning"], json)


async def _undone_before(data: bytes) -> list[str]:
    """Return what constitution-service says was undone because of these bytes or rules; nothing where none is set."""
    from constitution.errors import UnavailableError
    from constitution_client.connections import service_client
    from constitution_client.review import harmful_lines
    from constitution_client.settings import settings

    configured = settings()
    if configured.constitution_service_url is None:
        return []
    try:
        async with service_client(configured) as service:
            return harmful_lines(await service.validate_files(data, ()))
    except UnavailableError as error:
        progress(f"warning: whether it was undone as harmful before is not known: {error.message}")
        return []


async def read_source(source: str) -> "Constitution | None":
    """Return the constitution that a person named: by file, by checksum, ``current``, or ``none``.

    Raises:
        ConstitutionError: it does not exist, cannot be read, or is not valid.
    """
    from constitution.policy.document import parse

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
        return await _live()
    if source.startswith("sha256:"):
        async with service_client(settings()) as service:
            return await service.artifact(source)
    return read_bytes(Path(source), what="constitution")


async def _live() -> bytes | None:
    """Return what is live in ring ``default``, verified if a trust policy is configured."""
    from constitution_client.connections import service_client, trust_policy
    from constitution_client.settings import settings
    from signatures.current import verify_current

    configured = settings()
    async with service_client(configured) as service:
        live = await service.current()
    if live is None or live.document is None:
        return None
    if configured.trust_file is not None or configured.environment_file is not None:
        policy = trust_policy(configured)
        verify_current(live, trust=policy, environment=policy.environment, ring="default")
    return live.document.encode()


VERBS = {"draft": draft, "diff": diff}
