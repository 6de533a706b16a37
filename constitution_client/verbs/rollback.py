"""The verbs rollback and withdraw: each shows what it would undo and restore, asks, then starts the run."""

import asyncio
import json as json_text
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import uuid4

import typer

from constitution_client.output import JsonOption, one_line, progress, result
from constitution_client.verbs.runs import (
    OperatorKeyOption,
    PrintOption,
    TimeoutOption,
    TrustOption,
    WaitOption,
    request_of,
    started,
)
from constitution_client.verbs.signing_options import (
    signing_options,
    signs_keylessly,
)

if TYPE_CHECKING:
    from constitution.messages import RollbackRequest
    from constitution.past import Past
    from constitution_client.keyless import KeylessOptions
    from constitution_client.ordering import Signer
    from constitution_client.settings import ClientSettings
    from constitution_client.signing import SigningOptions
    from constitution_client.temporal import Runs


@signs_keylessly
def rollback(
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why; shown to everyone.")],
    to: Annotated[int | None, typer.Option("--to", min=1, help="Restore this generation's constitution.")] = None,
    bad_generation: Annotated[
        int | None, typer.Option("--bad-generation", min=1, help="Undo this release; default: the current one.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what it would undo and restore.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; needed where there is no terminal.")] = False,
    key: OperatorKeyOption = None,
    keyless: "KeylessOptions | None" = None,
    trust: TrustOption = None,
    print_only: PrintOption = False,
    wait: WaitOption = False,
    timeout: TimeoutOption = None,
    json: JsonOption = None,
) -> None:
    """Undo a release: by default the current one, back to the newest confirmed constitution before it.

    Shows first what it undoes and restores, and asks. Where no constitution was confirmed before, it restores none:
    the constitution is withdrawn, and every request is denied. Signed by an operator; without a key, the run waits for
    an operator's signed order.
    """
    from constitution.messages import RollbackRequest

    signing = _signing(key, keyless, print_only=print_only)
    request = request_of(RollbackRequest, reason=reason, to=to, bad_generation=bad_generation)
    raise typer.Exit(
        asyncio.run(
            _rollback(
                request,
                dry_run=dry_run,
                yes=yes,
                signing=signing,
                trust=trust,
                print_only=print_only,
                wait=wait,
                timeout=timeout,
                json=json,
            )
        )
    )


@signs_keylessly
def withdraw(
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why; shown to everyone.")],
    bad_generation: Annotated[
        int | None, typer.Option("--bad-generation", min=1, help="What must be live; default: the current release.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what it would withdraw.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; needed where there is no terminal.")] = False,
    key: OperatorKeyOption = None,
    keyless: "KeylessOptions | None" = None,
    trust: TrustOption = None,
    print_only: PrintOption = False,
    wait: WaitOption = False,
    timeout: TimeoutOption = None,
    json: JsonOption = None,
) -> None:
    """The emergency stop: no constitution is in force any more, and every request is denied.

    It takes the board: as many members as the threshold withdraw says approve the run that this starts. Only a first
    release is withdrawn by the approvals that it came with, in their time, and an operator's order. What was confirmed
    before comes back by: constitution rollback --to GENERATION.
    """
    from constitution.messages import RollbackRequest

    signing = _signing(key, keyless, print_only=print_only)
    request = request_of(RollbackRequest, reason=reason, bad_generation=bad_generation, withdraw=True)
    raise typer.Exit(
        asyncio.run(
            _rollback(
                request,
                dry_run=dry_run,
                yes=yes,
                signing=signing,
                trust=trust,
                print_only=print_only,
                wait=wait,
                timeout=timeout,
                json=json,
            )
        )
    )


def _signing(key: Path | None, keyless: "KeylessOptions | None", *, print_only: bool) -> "SigningOptions | None":
    """Return how the order is signed; None: the run waits for one."""
    if key is not None or keyless is not None:
        return signing_options(key, keyless=keyless)
    if print_only:
        raise typer.BadParameter("--print prints what is signed: it goes with --key or --sigstore")
    return None


async def _rollback(
    request: "RollbackRequest",
    *,
    dry_run: bool,
    yes: bool,
    signing: "SigningOptions | None",
    trust: Path | None,
    print_only: bool,
    wait: bool,
    timeout: float | None,  # noqa: ASYNC109 - a limit a person typed, enforced by follow
    json: bool | None,
) -> int:
    from constitution.errors import NotFoundError
    from constitution.rollback_plan import bad_release, is_preauthorised, rollback_target, step_of, undone_by
    from constitution_client.connections import runs
    from constitution_client.ordering import Signer
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
    expired = await _expired(configured, target)
    lines += [] if expired is None else [f"warning      {expired}"]
    if dry_run:
        plan = {
            "bad_generation": bad.generation,
            "restore_generation": target.generation if target else None,
            "restore_version": target.version if target else None,
            "withdraws": target is None,
            "preauthorised": is_preauthorised(bad, target, releases, datetime.now(UTC)),
            "already": already,
            "expired": expired,
        }
        result(plan, [*lines, "nothing was changed"], json)
        return 0
    for line in lines:
        progress(one_line(line))
    confirm(f"Start this {'withdraw' if request.withdraw else 'rollback'}?", yes=yes)
    # Both named, so that what is done is what the operator saw, also if something else goes live this second.
    named = {"bad_generation": bad.generation}
    if target is not None and already is None:
        named["to"] = target.generation
    request = request.model_copy(update=named)
    chosen = configured.names.rollback_id(configured.environment_name(), bad.generation)
    signer = None if signing is None else Signer.read("rollback", signing, configured, trust)
    if signer is not None:
        update_id = str(uuid4())
        envelope = signer.order(
            "rollback",
            workflow_id=chosen,
            update_id=update_id,
            step=step_of(bad.generation),
            reason=request.reason,
        )
        request = request.model_copy(update={"update_id": update_id, "order": envelope})
        progress(f"signed       by {signer.name}")
    if print_only:
        body = request.model_dump(mode="json", exclude_none=True)
        result(body, [json_text.dumps(body)], json)
        progress(f"start ConstitutionRollback as {chosen} with it: its input is what was printed")
        return 0
    connected = await runs(configured)
    try:
        run_id = await connected.start("ConstitutionRollback", request, chosen)
    except RunExistsError:
        progress(f"generation {bad.generation} is being rolled back already; this joins that run")
        run_id = ""
        if signer is not None:
            await _give_order(connected, chosen, signer, request.reason)
    return await started(chosen, run_id, "ConstitutionRollback", wait=wait, timeout=timeout, json=json)


async def _give_order(connected: "Runs", workflow_id: str, signer: "Signer", reason: str) -> None:
    """Give the order to a run that somebody else started, if it waits for one."""
    from constitution.errors import ConstitutionError
    from constitution.messages import OrderMessage
    from constitution_client.ordering import signed

    status = await connected.status(workflow_id)
    if not any(step.name == "request" and step.state == "waiting" for step in status.steps):
        return
    try:
        envelope = signed("rollback", workflow_id, status, signer, reason)
        if envelope is None:
            return
        message = OrderMessage(order=envelope)
        progress(f"rollback: {await connected.send(workflow_id, 'rollback', message)}")
    except ConstitutionError as error:
        progress(f"warning: {error.message}")


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


async def _expired(configured: "ClientSettings", target: "Past | None") -> str | None:
    """Say what agents do with a restored document that has expired; None: it has not, or nothing is restored."""
    from constitution_client.connections import service_client

    if target is None or target.checksum is None:
        return None
    async with service_client(configured) as service:
        return expired_says(await service.artifact(target.checksum), datetime.now(UTC))


def expired_says(document: bytes, now: datetime) -> str | None:
    """Say what holds of an expired document, in words; None while it has not expired.

    Read without the rules, whose libraries the client alone does not carry; its checksum is the release's.

    Args:
        document: its bytes.
        now: aware.
    """
    from constitution import strict_json

    content = strict_json.read(document)
    expires_at = datetime.fromisoformat(content["expires_at"])
    if now < expires_at:
        return None
    after = expires_at + timedelta(seconds=content.get("expiry_grace", 0))
    then = {
        "enforce": "agents obey it all the same",
        "require_approval": "what it allows takes a person's approval",
        "deny": "every request is denied",
    }[content.get("on_expiry", "deny")]
    begins = f"from {after:%Y-%m-%d %H:%M}Z on " if now < after else ""
    return f"what it restores expired at {expires_at:%Y-%m-%d %H:%M}Z: {begins}{then}; have a newer version released"


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


VERBS = {"rollback": rollback, "withdraw": withdraw}
