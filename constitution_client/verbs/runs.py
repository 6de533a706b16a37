"""Verbs that start and steer runs: update, status, abort, retry, hold, resume, order."""

import asyncio
import shlex
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from constitution import times
from constitution_client.output import JsonOption, progress, result
from constitution_client.verbs.signing_options import (
    OptionalKeyOption,
    PrintStatementOption,
    StatementOption,
    StatementSignatureOption,
    signing_options,
    signs_keylessly,
)

if TYPE_CHECKING:
    from constitution.model import Model
    from constitution_client.keyless import KeylessOptions
    from constitution_client.signing import SigningOptions
    from constitution_client.temporal import Runs

_M = TypeVar("_M", bound="Model")

RunArgument = Annotated[str, typer.Argument(help="A workflow id, or the id of an update's change request (CR-142).")]
KEY = typer.Option("--key", envvar="CONSTITUTION_KEY_FILE", help="Your OpenPGP secret key (mode 0600).")
OperatorKeyOption = Annotated[Path | None, KEY]
TrustOption = Annotated[Path | None, typer.Option("--trust", help="trust.toml (env: TRUST_FILE).")]
PrintOption = Annotated[
    bool,
    typer.Option("--print", help="Sign, print the JSON to paste into temporal or its UI, and send nothing."),
]
WaitOption = Annotated[bool, typer.Option("--wait", help="Follow the run to its end; the exit code is its outcome.")]
TimeoutOption = Annotated[
    float | None, typer.Option("--timeout", min=0, help="Seconds to follow; then exit 4, and the run goes on.")
]


ASKED_AT_ONCE = 8  # queries side by side: each costs a worker a task


def update(
    *,
    change_request: Annotated[str, typer.Option("--change-request", help="An existing one, e.g. CR-142.")],
    checksum: Annotated[str | None, typer.Option("--checksum", help="sha256:… of an artifact that was pushed.")] = None,
    document: Annotated[str | None, typer.Option("--document", help="Or: a file's name in the worker's inbox.")] = None,
    signature: Annotated[
        list[str] | None, typer.Option("--signature", help="Name of its signature in the inbox; may be repeated.")
    ] = None,
    strategy: Annotated[str, typer.Option("--strategy", help="A strategy of environment.toml.")] = "default",
    not_before: Annotated[
        str | None, typer.Option("--not-before", help="Go live not before, e.g. 2026-12-01T10:00:00Z.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only the preconditions; nothing goes live.")] = False,
    workflow_id: Annotated[
        str | None, typer.Option("--id", help="Workflow id; default: one per change request.")
    ] = None,
    wait: WaitOption = False,
    timeout: TimeoutOption = None,
    json: JsonOption = None,
) -> None:
    """Start the runbook for a signed constitution. Refused if a run for the same change request is open."""
    from constitution.messages import UpdateRequest

    request = request_of(
        UpdateRequest,
        change_request=change_request,
        checksum=checksum,
        document=document,
        signatures=tuple(signature) if signature else None,
        strategy=strategy,
        not_before=moment(not_before, "--not-before"),
        dry_run=dry_run,
    )
    raise typer.Exit(
        asyncio.run(_update(request, change_request, workflow_id=workflow_id, wait=wait, timeout=timeout, json=json))
    )


async def _update(
    request: "Model",
    change_request: str,
    *,
    workflow_id: str | None,
    wait: bool,
    timeout: float | None,  # noqa: ASYNC109 - a limit a person typed, enforced by follow
    json: bool | None,
) -> int:
    from constitution_client.connections import runs
    from constitution_client.settings import settings

    configured = settings()
    chosen = workflow_id or configured.names.update_id(configured.environment_name(), change_request)
    run_id = await (await runs(configured)).start("ConstitutionUpdate", request, chosen)
    return await started(chosen, run_id, "ConstitutionUpdate", wait=wait, timeout=timeout, json=json)


async def started(
    workflow_id: str,
    run_id: str,
    workflow: str,
    *,
    wait: bool,
    timeout: float | None,  # noqa: ASYNC109 - a limit a person typed, enforced by follow
    json: bool | None,
) -> int:
    """Say what was started, or follow it; return the exit code."""
    if wait:
        from constitution_client.follow import follow

        progress(f"started  {workflow_id}")
        return await follow(workflow_id, timeout=timeout, json=json)
    result(
        {"workflow_id": workflow_id, "run_id": run_id, "workflow": workflow},
        [
            f"started  {workflow_id}",
            f"next: constitution watch {shlex.quote(workflow_id)}",
            f"      constitution approve {shlex.quote(workflow_id)}",
            f"      constitution abort {shlex.quote(workflow_id)} --reason 'stopped by hand'",
        ],
        json,
    )
    return 0


def status(
    run: Annotated[
        str | None, typer.Argument(help="A workflow id or change request; without it: every open run.")
    ] = None,
    json: JsonOption = None,
) -> None:
    """Say where a run is, on whom it waits and what to type; without an argument, list the open runs."""
    asyncio.run(_open_runs(json) if run is None else _status(run, json))


async def _open_runs(json: bool | None) -> None:
    from constitution_client.connections import runs
    from constitution_client.output import table
    from constitution_client.settings import settings

    connected = await runs(settings())
    found = await connected.open_runs(("ConstitutionUpdate", "ConstitutionRollback", "ConstitutionGuard"))
    some = asyncio.Semaphore(ASKED_AT_ONCE)
    rows = await asyncio.gather(*(_open_run(connected, run, some) for run in found))
    shown = [[row[name] for name in ("workflow_id", "phase", "waiting_for", "started_at")] for row in rows]
    lines = table(("workflow id", "phase", "waiting for", "started at"), shown) if rows else ["no run is open"]
    lines += [f"next: {row['next_command']}" for row in rows if row["next_command"]]
    result(rows, lines, json)


async def _open_run(connected: "Runs", run: tuple[str, str, str], some: asyncio.Semaphore) -> dict[str, str]:
    """Return what a list says of one open run; one that cannot be asked is listed all the same."""
    from constitution.errors import ConstitutionError

    workflow_id, workflow, started_at = run
    row = {"workflow_id": workflow_id, "workflow": workflow, "started_at": started_at}
    async with some:
        try:
            status = await connected.status(workflow_id)
        except ConstitutionError as error:
            return {**row, "phase": "unknown", "waiting_for": error.message.partition(": ")[2], "next_command": ""}
    waiting = status.waiting_for or status.step or ""
    return {**row, "phase": status.phase.value, "waiting_for": waiting, "next_command": status.next_command}


async def _status(run: str, json: bool | None) -> None:
    from constitution_client.connections import run_named
    from constitution_client.render import status_lines
    from constitution_client.settings import settings
    from constitution_client.temporal import troubles

    connected, chosen = await run_named(run, settings())
    answer = await connected.status(chosen)
    failing = troubles(await connected.describe(chosen))
    result(
        {"workflow_id": chosen, **answer.model_dump(mode="json"), "troubles": failing},
        status_lines(chosen, answer, failing),
        json,
    )


@signs_keylessly
def abort(
    run: RunArgument,
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why; shown to everyone.")],
    key: OperatorKeyOption = None,
    keyless: "KeylessOptions | None" = None,
    trust: TrustOption = None,
    json: JsonOption = None,
) -> None:
    """Stop an update before it is confirmed, and undo what is live. Needs no key before anything is live."""
    _order(
        "abort",
        run,
        key,
        keyless,
        reason,
        trust=trust,
        json=json,
    )


@signs_keylessly
def retry(
    run: RunArgument,
    *,
    reason: Annotated[str, typer.Option("--reason", help="What was repaired.")] = "retry",
    key: OperatorKeyOption = None,
    keyless: "KeylessOptions | None" = None,
    trust: TrustOption = None,
    json: JsonOption = None,
) -> None:
    """Try the step that is stuck again. Signed by an operator."""
    _order(
        "retry",
        run,
        key,
        keyless,
        reason,
        trust=trust,
        json=json,
    )


@signs_keylessly
def hold(
    run: RunArgument,
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why.")],
    key: OperatorKeyOption = None,
    keyless: "KeylessOptions | None" = None,
    trust: TrustOption = None,
    json: JsonOption = None,
) -> None:
    """Do not confirm when the watch ends: wait for resume, promote or abort. Signed by an operator."""
    _order(
        "hold",
        run,
        key,
        keyless,
        reason,
        trust=trust,
        json=json,
    )


@signs_keylessly
def resume(
    run: RunArgument,
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why.")] = "resume",
    key: OperatorKeyOption = None,
    keyless: "KeylessOptions | None" = None,
    trust: TrustOption = None,
    json: JsonOption = None,
) -> None:
    """End a hold. Signed by an operator."""
    _order(
        "resume",
        run,
        key,
        keyless,
        reason,
        trust=trust,
        json=json,
    )


@signs_keylessly
def order(
    verb: Annotated[str, typer.Argument(help="abort, hold, resume, retry, rollback, skip or promote.")],
    run: RunArgument,
    *,
    key: OptionalKeyOption = None,
    print_statement: PrintStatementOption = None,
    signature: StatementSignatureOption = None,
    statement: StatementOption = None,
    keyless: "KeylessOptions | None" = None,
    reason: Annotated[str | None, typer.Option("--reason", help="Why; told to everyone.")] = None,
    trust: TrustOption = None,
    print_only: PrintOption = False,
    json: JsonOption = None,
) -> None:
    """Sign an order to a run, and send it; or print it, for whoever reaches Temporal.

    An order counts for this one run, once, for an hour. `rollback` is for a rollback that waits for one.
    """
    verbs = ("abort", "hold", "resume", "retry", "rollback", "skip", "promote")
    if verb not in verbs:
        raise typer.BadParameter(f"{verb!r} is none of {', '.join(verbs)}", param_hint="VERB")
    signing = signing_options(
        key,
        print_statement,
        signature,
        statement,
        keyless,
    )
    _send(verb, run, signing, reason, trust=trust, print_only=print_only, json=json)


def _order(
    verb: str,
    run: str,
    key: Path | None,
    keyless: "KeylessOptions | None",
    reason: str,
    *,
    trust: Path | None,
    json: bool | None,
) -> None:
    signing = None if key is None and keyless is None else signing_options(key, keyless=keyless)
    _send(verb, run, signing, reason, trust=trust, json=json)


def _send(
    verb: str,
    run: str,
    signing: "SigningOptions | None",
    reason: str | None,
    *,
    trust: Path | None,
    print_only: bool = False,
    json: bool | None,
) -> None:
    from constitution.messages import ReasonedMessage
    from constitution_client.ordering import order as send

    if reason is not None:
        request_of(ReasonedMessage, reason=reason)
    asyncio.run(send(verb, run, signing, reason, trust=trust, print_only=print_only, json=json))


def request_of(model: "type[_M]", **fields: object) -> "_M":
    """Return a message of this model.

    Raises:
        UsageError: with every problem.
    """
    from pydantic import ValidationError

    from constitution.environment import issues_of
    from constitution_client.settings import UsageError

    try:
        return model(**fields)
    except ValidationError as error:
        raise UsageError("the command line does not make a request", issues=issues_of(error)) from error


def moment(text: str | None, option: str) -> datetime | None:
    """Read a moment from the command line; None stays None.

    Raises:
        typer.BadParameter: it is none, or names no time zone.
    """
    if text is None:
        return None
    try:
        read: datetime = times.checked(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text[:64]!r} {error}", param_hint=option) from error
    return read


VERBS = {
    "update": update,
    "status": status,
    "abort": abort,
    "retry": retry,
    "hold": hold,
    "resume": resume,
    "order": order,
}
