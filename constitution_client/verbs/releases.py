"""Verbs about what is and was live: current, releases, show, load."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
    from constitution_client.keyless import KeylessOptions
    from constitution_client.service import ConstitutionServiceClient

TrustOption = Annotated[Path | None, typer.Option("--trust", help="trust.toml to verify with (env: TRUST_FILE).")]


def current(
    ring: Annotated[str, typer.Option("--ring", help="Of which ring.")] = "default",
    trust: TrustOption = None,
    json: JsonOption = None,
) -> None:
    """Show what a ring must obey now, verified against the trust policy. Exit 1 if it does not verify."""
    asyncio.run(_current(ring, trust, json))


async def _current(ring: str, trust: Path | None, json: bool | None) -> None:

    from constitution.errors import NotFoundError
    from constitution_client.connections import service_client, trust_policy
    from constitution_client.render import when
    from constitution_client.settings import settings
    from signatures.current import verify_current

    configured = settings()
    policy = trust_policy(configured, trust)
    async with service_client(configured) as service:
        answer = await service.current(ring)
    if answer is None:
        raise NotFoundError(
            f"nothing is live in ring {ring} of {policy.environment}: no release was ever made",
            hint="constitution draft --version 1.0.0 --previous none --out constitution_v1.0.0.json",
        )
    verify_current(answer, trust=policy, environment=policy.environment, ring=ring)
    result(
        {**answer.model_dump(mode="json"), "verified": True},
        [
            f"version      {answer.version or 'none: the constitution was withdrawn'}",
            f"checksum     {answer.checksum or 'none'}",
            f"generation   {answer.generation} ({answer.kind.value})",
            f"effective at {when(answer.effective_at)}",
            f"verified     statement, bytes and signatures against the trust policy of {policy.environment}",
        ],
        json,
    )


def releases(json: JsonOption = None) -> None:
    """List every release of the environment, newest first, with what became of it."""
    asyncio.run(_releases(json))


async def _releases(json: bool | None) -> None:
    from constitution_client.connections import service_client
    from constitution_client.render import release_table
    from constitution_client.settings import settings

    async with service_client(settings()) as service:
        found = await service.releases()
    lines = release_table(found) if found else ["no release was ever made"]
    result([release.model_dump(mode="json") for release in found], lines, json)


def show(
    what: Annotated[str, typer.Argument(help="A generation (7), a checksum (sha256:…), or a change request (CR-142).")],
    out: Annotated[Path | None, typer.Option("--out", help="Write a document's exact bytes to this new file.")] = None,
    json: JsonOption = None,
) -> None:
    """Show one release, one stored constitution, or one change request."""
    asyncio.run(_show(what, out, json))


async def _show(what: str, out: Path | None, json: bool | None) -> None:
    from constitution_client.connections import service_client
    from constitution_client.render import release_lines
    from constitution_client.settings import settings

    async with service_client(settings()) as service:
        if what.isascii() and what.isdigit():
            release = await service.release(int(what))
            result(release.model_dump(mode="json"), release_lines(release), json)
        elif what.startswith("sha256:"):
            await _show_artifact(service, what, out, json)
        else:
            record = await service.change_request(what)
            asked = record.request
            result(
                record.model_dump(mode="json"),
                [f"{asked.id} by {asked.author} for {asked.checksum}", f"reason: {asked.reason}"],
                json,
            )


async def _show_artifact(
    service: "ConstitutionServiceClient", checksum: str, out: Path | None, json: bool | None
) -> None:
    from constitution.policy.document import parse
    from constitution_client.files import write_new

    document = await service.artifact(checksum)
    if out is not None:
        write_new(out, document)
        progress(f"wrote {len(document)} bytes to {out}; their checksum is {checksum}")
        return
    constitution = parse(document)
    lines = [
        f"{constitution.title}, version {constitution.version} for {constitution.environment}",
        f"expires  {constitution.expires_at.isoformat()}",
        f"previous {constitution.previous.version if constitution.previous else 'none'}",
        constitution.summary,
        *(f"  {p.id}: {p.text}" for p in constitution.principles),
        *(f"  {r.effect} {r.id} ({r.severity}) when {r.when}" for r in constitution.rules),
        f"  default: {constitution.default_effect}",
        f"next: constitution show {checksum} --out constitution_v{constitution.version}.json  # writes the exact bytes",
    ]
    result(constitution.model_dump(mode="json"), lines, json)


def load(
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why this goes live by hand.")],
    checksum: Annotated[
        str | None, typer.Option("--checksum", help="sha256:… that was pushed; none withdraws.")
    ] = None,
    kind: Annotated[str, typer.Option("--kind", help="update, rollback, reissue or withdraw.")] = "update",
    change_request: Annotated[str | None, typer.Option("--change-request", help="Needed by an update.")] = None,
    approval: Annotated[
        list[Path] | None,
        typer.Option("--approval", help="A file with a signed decision (constitution approve --print); repeat it."),
    ] = None,
    evidence: Annotated[
        str | None, typer.Option("--evidence", help="Digest of the regression gate's evidence.")
    ] = None,
    rollback_of: Annotated[int | None, typer.Option("--rollback-of", help="The generation that is undone.")] = None,
    confirm: Annotated[
        bool,
        typer.Option("--confirm", help="Record it as confirmed (verdict not_watched) before giving the lease back."),
    ] = False,
    order: Annotated[
        list[Path] | None,
        typer.Option("--order", help="For --confirm: a file with an order that the verb confirm printed; repeat it."),
    ] = None,
    update_id: Annotated[
        str | None,
        typer.Option("--update-id", help="What an update's approvals name; or of a load to repeat."),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            "--key",
            envvar="CONSTITUTION_KEY_FILE",
            help="An operator's secret key: orders a rollback that the board has not decided anew.",
        ),
    ] = None,
    json: JsonOption = None,
) -> None:
    """Put a constitution live BY HAND, without the workflow: no sync, no watch, no broadcast, no archive.

    For the day Temporal is down. constitution-service checks everything all the same (signatures, approvals,
    evidence, lease, generation), so nothing goes live that the board did not approve. Without --confirm the release
    stays unconfirmed, and reconciliation may undo it. Nobody watches it, so the confirmation takes the orders of as
    many board members as a rollback. Else use: constitution update.
    """
    from constitution_client.by_hand import ByHand, load_by_hand

    wanted = ByHand.read(
        reason=reason,
        checksum=checksum,
        kind=kind,
        change_request=change_request,
        approvals=approval or (),
        evidence=evidence,
        rollback_of=rollback_of,
        confirm=confirm,
        orders=order or (),
        update_id=update_id,
        key=key,
    )
    asyncio.run(load_by_hand(wanted, json))


@signs_keylessly
def confirm(
    generation: Annotated[int, typer.Argument(help="The release, by its generation.", min=1)],
    *,
    key: OptionalKeyOption = None,
    print_statement: PrintStatementOption = None,
    signature: StatementSignatureOption = None,
    statement: StatementOption = None,
    keyless: "KeylessOptions | None" = None,
    reason: Annotated[str | None, typer.Option("--reason", help="Why it may stay though nobody watched it.")] = None,
    trust: Annotated[Path | None, typer.Option("--trust", help="trust.toml (env: TRUST_FILE).")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: JsonOption = None,
) -> None:
    """Sign an order to confirm a release that went live by hand, and print it: for load --confirm --order FILE."""
    if reason is None and signature is None:
        raise typer.BadParameter("an order to confirm says why: --reason")
    from constitution_client.by_hand import sign_confirmation

    signing = signing_options(
        key,
        print_statement,
        signature,
        statement,
        keyless,
    )
    asyncio.run(sign_confirmation(generation, signing, reason, trust=trust, yes=yes, json=json))


VERBS = {"current": current, "releases": releases, "show": show, "load": load, "confirm": confirm}
