"""Verbs that speak to constitution-service about documents: push, validate, change-request."""

import asyncio
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from constitution_client.output import JsonOption, result
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

DocumentOption = Annotated[Path, typer.Option("--path", "--document", help="The constitution: a JSON file.")]
SignatureOption = Annotated[
    list[Path], typer.Option("--signature", help="A detached signature of it, OpenPGP or Sigstore; may be repeated.")
]
ChecksumOption = Annotated[str | None, typer.Option("--checksum", help="sha256:… of an artifact that was pushed.")]


def push(path: DocumentOption, signature: SignatureOption, json: JsonOption = None) -> None:
    """Store a signed constitution in constitution-service. Nothing goes live by it; twice is as good as once."""
    asyncio.run(_push(path, signature, json))


async def _push(path: Path, signatures: list[Path], json: bool | None) -> None:
    from constitution_client.connections import service_client
    from constitution_client.files import read_bytes
    from constitution_client.settings import settings

    document = read_bytes(path, what="constitution")
    files = [read_bytes(name, what="signature") for name in signatures]
    async with service_client(settings(), writes=True) as service:
        artifact = await service.push(document, files)
    needed, have = artifact.needed, len(artifact.signers)
    takes = f"; {needed} must sign it before it can go live" if needed is not None and needed > 1 else ""
    result(
        artifact.model_dump(mode="json"),
        [
            f"pushed   {artifact.version}",
            f"checksum {artifact.checksum}",
            f"signers  {', '.join(artifact.signers)}{takes}",
            f"stored   {artifact.storage_uri}",
            (
                f"next: constitution sign {shlex.quote(str(path))} --out other.sig  "
                f"# by {needed - have} more of the maintainers; then push again with --signature other.sig"
                if needed is not None and have < needed
                else f"next: constitution change-request --id CR-{artifact.version} --checksum {artifact.checksum}"
                f" --reason 'release {artifact.version}'"
            ),
        ],
        json,
    )


def validate(
    checksum: ChecksumOption = None,
    path: Annotated[Path | None, typer.Option("--path", "--document", help="Or a file, with --signature.")] = None,
    signature: Annotated[list[Path] | None, typer.Option("--signature", help="Its detached signature(s).")] = None,
    json: JsonOption = None,
) -> None:
    """Ask constitution-service whether a document could go live now. Changes nothing; exit 1 if it could not."""
    if (checksum is None) == (path is None):
        raise typer.BadParameter("give either --checksum, or --path and --signature")
    valid = asyncio.run(_validate(checksum, path, signature or [], json))
    raise typer.Exit(0 if valid else 1)


async def _validate(checksum: str | None, path: Path | None, signatures: list[Path], json: bool | None) -> bool:
    from constitution_client.connections import service_client
    from constitution_client.files import read_bytes
    from constitution_client.settings import settings

    async with service_client(settings()) as service:
        if path is not None:
            files = [read_bytes(name, what="signature") for name in signatures]
            answer = await service.validate_files(read_bytes(path, what="constitution"), files)
        else:
            answer = await service.validate(checksum or "")
    lines = [f"{'valid' if answer.valid else 'NOT VALID'}  {answer.version or ''} {answer.checksum}"]
    lines += [f"signers  {', '.join(answer.signers) or 'nobody the trust policy knows'}"]
    lines += [f"  - {issue.path + ': ' if issue.path else ''}{issue.message} [{issue.code}]" for issue in answer.issues]
    lines += [f"next: {issue.hint}" for issue in answer.issues if issue.hint][:1]
    result(answer.model_dump(mode="json"), lines, json)
    return answer.valid


@signs_keylessly
def change_request(
    *,
    identifier: Annotated[str, typer.Option("--id", help="A new id, e.g. CR-142.")],
    reason: Annotated[str, typer.Option("--reason", help="Why the board should want it.")],
    key: OptionalKeyOption = None,
    print_statement: PrintStatementOption = None,
    signature: StatementSignatureOption = None,
    statement: StatementOption = None,
    keyless: "KeylessOptions | None" = None,
    checksum: ChecksumOption = None,
    path: Annotated[Path | None, typer.Option("--path", "--document", help="Or the document itself.")] = None,
    author: Annotated[str | None, typer.Option("--author", help="Person id; default: whose key it is.")] = None,
    trust: Annotated[Path | None, typer.Option("--trust", help="trust.toml (env: TRUST_FILE).")] = None,
    print_only: Annotated[bool, typer.Option("--print", help="Sign and print the envelope; send nothing.")] = False,
    json: JsonOption = None,
) -> None:
    """Sign and file a change request: what an author asks the board for."""
    if (checksum is None) == (path is None):
        raise typer.BadParameter("give either --checksum, or --path")
    asyncio.run(
        _change_request(
            identifier=identifier,
            reason=reason,
            signing=signing_options(
                key,
                print_statement,
                signature,
                statement,
                keyless,
            ),
            checksum=checksum,
            path=path,
            author=author,
            trust=trust,
            print_only=print_only,
            json=json,
        )
    )


async def _change_request(
    *,
    identifier: str,
    reason: str,
    signing: "SigningOptions",
    checksum: str | None,
    path: Path | None,
    author: str | None,
    trust: Path | None,
    print_only: bool,
    json: bool | None,
) -> None:
    from pydantic import ValidationError

    from constitution.api import ChangeRequest
    from constitution.checksum import checksum_of
    from constitution.environment import issues_of
    from constitution_client.connections import service_client, trust_policy
    from constitution_client.files import read_bytes
    from constitution_client.settings import UsageError, settings
    from constitution_client.signing import Signing
    from signatures.statements import CHANGE_REQUEST, change_request_bytes

    configured = settings()
    signer = Signing.begin(signing, trust_policy(configured, trust))
    person = author or (signer.person.id if signer.person is not None else None)
    if person is None:
        raise UsageError("nobody is named as the author of what is written down", hint="--author ID, or their --key")
    try:
        request = ChangeRequest(
            id=identifier,
            author=person,
            checksum=checksum if path is None else checksum_of(read_bytes(path, what="constitution")),
            reason=reason,
        )
    except ValidationError as error:
        raise UsageError("this is no change request", issues=issues_of(error)) from error
    envelope = signer.envelope(change_request_bytes(request), CHANGE_REQUEST, json, author=person)
    if envelope is None:
        return
    if print_only:
        result(envelope.model_dump(mode="json"), [envelope.model_dump_json()], json)
        return
    async with service_client(configured, writes=True) as service:
        record = await service.create_change_request(envelope)
    result(
        record.model_dump(mode="json"),
        [
            f"stored   {record.request.id} by {record.request.author} for {record.request.checksum}",
            f"next: constitution update --checksum {record.request.checksum} --change-request {record.request.id}",
        ],
        json,
    )


VERBS = {"push": push, "validate": validate, "change-request": change_request}
