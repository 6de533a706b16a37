"""The verb rollback: shows what it would undo and restore, asks, then starts the run."""

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from constitution_client.output import JsonOption, one_line, progress, result
from constitution_client.verbs.runs import TimeoutOption, WaitOption, request_of, started

if TYPE_CHECKING:
    from constitution.messages import RollbackRequest
    from constitution.past import Past
    from constitution_client.settings import ClientSettings


def rollback(
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why; shown to everyone.")],
    to: Annotated[int | None, typer.Option("--to", min=1, help="Restore this generation's constitution.")] = None,
    bad_generation: Annotated[
        int | None, typer.Option("--bad-generation", min=1, help="Undo this release; default: the current one.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what it would undo and restore.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; needed where there is no terminal.")] = False,
    wait: WaitOption = False,
    timeout: TimeoutOption = None,
    json: JsonOption = None,
) -> None:
    """Undo a release: by default the current one, back to the newest confirmed constitution before it.

    Shows first what it undoes and restores, and asks. Where no constitution was confirmed before, it restores none:
    the constitution is withdrawn, and every request is denied.
    """
    from constitution.messages import RollbackRequest

    request = request_of(RollbackRequest, reason=reason, to=to, bad_generation=bad_generation)
    raise typer.Exit(asyncio.run(_rollback(request, dry_run=dry_run, yes=yes, wait=wait, timeout=timeout, json=json)))


async def _rollback(
    request: "RollbackRequest",
    *,
    dry_run: bool,
    yes: bool,
    wait: bool,
    timeout: float | None,  # noqa: ASYNC109 - a limit a person typed, enforced by follow
    json: bool | None,
) -> int:
    from constitution.errors import NotFoundError
    from constitution.rollback_plan import bad_release, is_preauthorised, rollback_target, undone_by
    from constitution_client.connections import runs
    from constitution_client.prompting import confirm
    from constitution_client.settings import settings
    from constitution_client.temporal import RunExistsError

    configured = settings()
    releases = await _past_releases(configured)
    bad = bad_release(request, releases)
    if bad is None:  # only where a run asks for the release of its own update
        raise NotFoundError("there is no such release", hint="constitution releases")
    already = undone_by(bad, releases)
    target = rollback_target(request, bad, releases, already)
    lines = _preview(bad, target, already, releases)
    if dry_run:
        plan = {
            "bad_generation": bad.generation,
            "restore_generation": target.generation if target else None,
            "restore_version": target.version if target else None,
            "withdraws": target is None,
            "preauthorised": is_preauthorised(bad, target, releases, datetime.now(UTC)),
            "already": already,
        }
        result(plan, [*lines, "nothing was changed"], json)
        return 0
    for line in lines:
        progress(one_line(line))
    confirm("Start this rollback?", yes=yes)
    # Both named, so that what is done is what the operator saw, also if something else goes live this second.
    named = {"bad_generation": bad.generation}
    if target is not None and already is None:
        named["to"] = target.generation
    request = request.model_copy(update=named)
    chosen = configured.names.rollback_id(configured.environment_name(), bad.generation)
    try:
        run_id = await (await runs(configured)).start("ConstitutionRollback", request, chosen)
    except RunExistsError:
        progress(f"generation {bad.generation} is being rolled back already; this joins that run")
        run_id = ""
    return await started(chosen, run_id, "ConstitutionRollback", wait=wait, timeout=timeout, json=json)


async def _past_releases(configured: "ClientSettings") -> "list[Past]":
    """Return every release, lowest generation first.

    Raises:
        NotFoundError: there is none.
    """
    from constitution.errors import NotFoundError
    from constitution.past import past
    from constitution_client.connections import service_client

    async with service_client(configured) as service:
        found = [past(release) async for release in service.iter_releases()]
    if not found:
        raise NotFoundError("nothing is live: there is nothing to roll back", hint="constitution releases")
    return found[::-1]


def _preview(bad: "Past", target: "Past | None", already: int | None, releases: "list[Past]") -> list[str]:
    """Return the run's plan in words, by the rules by which the run itself plans."""
    from constitution.rollback_plan import is_preauthorised

    lines = [f"undoes       {_name(bad)}, {bad.standing.value if bad.standing else 'unconfirmed'}"]
    if target is None:
        lines.append("restores     NOTHING: the constitution is withdrawn and every request is denied")
    else:
        lines.append(f"restores     {_name(target)}, {target.checksum}")
    if already is not None:
        lines.append(f"note         generation {already} has undone it already; only missing records are written")
    elif is_preauthorised(bad, target, releases, datetime.now(UTC)):
        lines.append("board        authorised in advance by the approvals of the release that it undoes")
    else:
        lines.append("board        a quorum must sign it before anything changes")
    return lines


def _name(release: "Past") -> str:
    return f"generation {release.generation}, {release.version or 'no constitution'}"


VERBS = {"rollback": rollback}
