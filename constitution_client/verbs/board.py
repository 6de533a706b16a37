"""Verbs of the board: approve, deny, reissue, skip, promote. Each signs with a person's key, and first shows what."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from constitution_client.output import JsonOption
from constitution_client.verbs.runs import PrintOption, RunArgument, TrustOption
from constitution_client.verbs.signing_options import (
    OptionalKeyOption,
    PrintStatementOption,
    StatementOption,
    StatementSignatureOption,
    signing_options,
    signs_keylessly,
)

if TYPE_CHECKING:
    from constitution_client.keyless import KeylessOptions
    from constitution_client.signing import SigningOptions

YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask before signing.")]
ValidOption = Annotated[int, typer.Option("--valid-days", min=1, max=30, help="How long the signature counts.")]
EvidenceOption = Annotated[
    str | None,
    typer.Option("--evidence", help="With --checksum: decide without asking Temporal, for constitution load."),
]
ChecksumOption = Annotated[str | None, typer.Option("--checksum", help="With --evidence: what is decided on.")]
UpdateIdOption = Annotated[
    str | None,
    typer.Option("--update-id", help="With --evidence: the update, by the name that load will be given."),
]
RollbackOfOption = Annotated[
    int | None,
    typer.Option("--rollback-of", min=1, help="Decide on undoing this generation; --checksum is what to restore."),
]


@signs_keylessly
def approve(
    run: RunArgument,
    *,
    key: OptionalKeyOption = None,
    print_statement: PrintStatementOption = None,
    signature: StatementSignatureOption = None,
    statement: StatementOption = None,
    keyless: "KeylessOptions | None" = None,
    reason: Annotated[
        str | None, typer.Option("--reason", help="Why; kept with the release for ever. Default: approved.")
    ] = None,
    checksum: ChecksumOption = None,
    evidence: EvidenceOption = None,
    update_id: UpdateIdOption = None,
    rollback_of: RollbackOfOption = None,
    valid_days: ValidOption = 7,
    trust: TrustOption = None,
    print_only: PrintOption = False,
    yes: YesOption = False,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait for the regression gate, whose evidence is signed.")
    ] = True,
    json: JsonOption = None,
) -> None:
    """Approve an update (or a later rollback) as a member of the board.

    Waits until the regression gate has ended, and shows how far the run is. Fetches the document, checks its bytes and
    signatures, shows the diff and the gate's evidence, asks, signs, sends. It also pre-authorises the rollback to the
    version before.
    """
    _decide(
        "approve",
        run,
        signing=signing_options(
            key,
            print_statement,
            signature,
            statement,
            keyless,
        ),
        reason=reason,
        checksum=checksum,
        evidence=evidence,
        update_id=update_id,
        rollback_of=rollback_of,
        valid_days=valid_days,
        trust=trust,
        print_only=print_only,
        yes=yes,
        wait=wait,
        json=json,
    )


@signs_keylessly
def deny(
    run: RunArgument,
    *,
    key: OptionalKeyOption = None,
    print_statement: PrintStatementOption = None,
    signature: StatementSignatureOption = None,
    statement: StatementOption = None,
    keyless: "KeylessOptions | None" = None,
    reason: Annotated[str | None, typer.Option("--reason", help="Why; shown to everyone.")] = None,
    checksum: ChecksumOption = None,
    evidence: EvidenceOption = None,
    rollback_of: RollbackOfOption = None,
    valid_days: ValidOption = 7,
    trust: TrustOption = None,
    print_only: PrintOption = False,
    yes: YesOption = False,
    json: JsonOption = None,
) -> None:
    """Deny an update as a member of the board: one denial stops it."""
    if reason is None and signature is None:
        raise typer.BadParameter("a denial says why: --reason")
    _decide(
        "deny",
        run,
        signing=signing_options(
            key,
            print_statement,
            signature,
            statement,
            keyless,
        ),
        reason=reason,
        checksum=checksum,
        evidence=evidence,
        update_id=None,
        rollback_of=rollback_of,
        valid_days=valid_days,
        trust=trust,
        print_only=print_only,
        yes=yes,
        wait=True,
        json=json,
    )


def _decide(
    verb: str,
    run: str,
    *,
    signing: "SigningOptions",
    reason: str | None,
    checksum: str | None,
    evidence: str | None,
    update_id: str | None,
    rollback_of: int | None,
    valid_days: int,
    trust: Path | None,
    print_only: bool,
    yes: bool,
    wait: bool,
    json: bool | None,
) -> None:
    if evidence is not None and not print_only and signing.print_statement is None:
        raise typer.BadParameter("--evidence decides without asking Temporal: it goes with --print")
    if checksum is not None and evidence is None and rollback_of is None:
        raise typer.BadParameter("--checksum goes with --evidence or --rollback-of")
    if verb == "approve" and (update_id is None) is not (evidence is None):
        raise typer.BadParameter("--evidence and --update-id go together: an approval is for one update")
    from constitution.trust.approval import BoardDecision
    from constitution_client.deciding import Order, decide

    order = Order(
        decision=BoardDecision(verb),
        run=run,
        signing=signing,
        reason=reason,
        checksum=checksum,
        evidence=evidence,
        update_id=update_id,
        rollback_of=rollback_of,
        valid_days=valid_days,
        trust=trust,
        print_only=print_only,
        yes=yes,
        wait=wait,
    )
    asyncio.run(decide(order, json))


@signs_keylessly
def reissue(
    request: Annotated[str, typer.Argument(metavar="CHANGE_REQUEST", help="That asks for what was poisoned: CR-143.")],
    *,
    key: OptionalKeyOption = None,
    print_statement: PrintStatementOption = None,
    signature: StatementSignatureOption = None,
    statement: StatementOption = None,
    keyless: "KeylessOptions | None" = None,
    reason: Annotated[
        str | None, typer.Option("--reason", help="Why it may come again; kept in the audit stream.")
    ] = None,
    valid_days: ValidOption = 7,
    trust: TrustOption = None,
    yes: YesOption = False,
    json: JsonOption = None,
) -> None:
    """Sign, as a member of the board, that a change request may release again what was undone as harmful.

    It takes as many members as the threshold reissue says, and replaces no approval: the update is started, tested,
    approved and watched as every other. Good for this change request's one release.
    """
    if reason is None and signature is None:
        raise typer.BadParameter("a reissue says why: --reason")
    from constitution_client.reissuing import reissue as sign

    signing = signing_options(
        key,
        print_statement,
        signature,
        statement,
        keyless,
    )
    asyncio.run(sign(request, signing, reason, valid_days=valid_days, trust=trust, yes=yes, json=json))


@signs_keylessly
def skip(
    run: RunArgument,
    *,
    key: OptionalKeyOption = None,
    keyless: "KeylessOptions | None" = None,
    reason: Annotated[str, typer.Option("--reason", help="Why the step may be left out.")],
    trust: TrustOption = None,
    print_only: PrintOption = False,
    yes: YesOption = False,
    json: JsonOption = None,
) -> None:
    """Order a run to go on without the records' step that is stuck; only after confirmation. Signed."""
    from constitution_client.ordering import order

    asyncio.run(
        order(
            "skip",
            run,
            signing_options(key, keyless=keyless),
            reason,
            trust=trust,
            print_only=print_only,
            ask=not yes,
            json=json,
        )
    )


@signs_keylessly
def promote(
    run: RunArgument,
    *,
    key: OptionalKeyOption = None,
    keyless: "KeylessOptions | None" = None,
    reason: Annotated[str, typer.Option("--reason", help="Why the watch need not end.")],
    trust: TrustOption = None,
    print_only: PrintOption = False,
    yes: YesOption = False,
    json: JsonOption = None,
) -> None:
    """Order a run to confirm without waiting for the end of the watch or of a hold. Signed."""
    from constitution_client.ordering import order

    asyncio.run(
        order(
            "promote",
            run,
            signing_options(key, keyless=keyless),
            reason,
            trust=trust,
            print_only=print_only,
            ask=not yes,
            json=json,
        )
    )


VERBS = {"approve": approve, "deny": deny, "reissue": reissue, "skip": skip, "promote": promote}
