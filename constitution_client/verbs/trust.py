"""Verbs about keys and signatures, all offline: init, sign, verify-signature."""

import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from constitution_client.output import JsonOption, result
from constitution_client.verbs.signing_options import (
    OptionalKeyOption,
    signing_options,
    signs_keylessly,
)

if TYPE_CHECKING:
    from constitution_client.keyless import KeylessOptions
    from constitution_client.signing import SigningOptions


def init(  # noqa: PLR0917 - typer reads the options from the signature
    directory: Annotated[Path, typer.Option("--directory", help="Where trust/ and keys/ are made.")],
    environment: Annotated[str, typer.Option("--environment", help="The environment's name.")] = "development",
    maintainer: Annotated[
        list[str] | None,
        typer.Option(
            "--maintainer",
            "--maintainers",
            metavar="ID=CERTIFICATE",
            help="Signs documents; a public OpenPGP file. May be repeated, or several with commas between.",
        ),
    ] = None,
    author: Annotated[
        list[str] | None,
        typer.Option(metavar="ID=CERTIFICATE", help="Files change requests. Default: the maintainers."),
    ] = None,
    board: Annotated[
        list[str] | None, typer.Option(metavar="ID=CERTIFICATE", help="Approves. May be repeated.")
    ] = None,
    operator: Annotated[
        list[str] | None,
        typer.Option(metavar="ID=CERTIFICATE", help="Steers runs by signed orders. Default: the board."),
    ] = None,
    sigstore: Annotated[
        list[str] | None,
        typer.Option(metavar="ID=IDENTITY,ISSUER", help="A keyless identity of somebody named. May be repeated."),
    ] = None,
    sigstore_root: Annotated[
        Path | None, typer.Option("--sigstore-root", help="The Sigstore trusted root to pin; with --sigstore.")
    ] = None,
    passkey: Annotated[
        list[str] | None,
        typer.Option(metavar="ID=FILE", help="A passkey's enrolment, of somebody named. May be repeated."),
    ] = None,
    relying_party: Annotated[
        str | None, typer.Option("--relying-party", help="The domain name of the passkeys' pages; with --passkey.")
    ] = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=NUMBER", help="How many people an act takes, e.g. approval=3. May be repeated."),
    ] = None,
    generate: Annotated[
        bool,
        typer.Option("--generate", help="Make a secret key for each named by ID alone. In development always."),
    ] = False,
    json: JsonOption = None,
) -> None:
    """Make the trust policy of an environment, and the keys that it needs. Overwrites nothing; exit 1 if they exist."""
    from constitution_client.ceremony import make_trust
    from constitution_client.files import read_bytes
    from constitution_client.people import GUIDE, chosen_thresholds, enrolled, named_people

    passkeys, party = enrolled(passkey or (), relying_party)
    people = named_people(
        maintainers=maintainer or (),
        authors=author or (),
        board=board or (),
        operators=operator or (),
        sigstore=sigstore or (),
        passkeys=passkeys,
        generate=generate,
        environment=environment,
    )
    if (sigstore_root is None) is not (not sigstore):
        raise typer.BadParameter("--sigstore and --sigstore-root go together: identities count by a pinned root")
    made = make_trust(
        directory,
        environment,
        people=people,
        thresholds=chosen_thresholds(threshold or ()),
        sigstore_root=None if sigstore_root is None else read_bytes(sigstore_root, what="Sigstore trusted root"),
        relying_party=party,
    )
    generated = [person.id for person in people if person.gets_key]
    identities = {person.id: [f"{one.identity} by {one.issuer}" for one in person.sigstore] for person in people}
    result(
        {
            "environment": environment,
            "trust": str(made.trust),
            "keys": str(made.directory / "keys"),
            "fingerprints": made.fingerprints,
            "passkeys": {person: [key.fingerprint for key in keys] for person, keys in passkeys.items()},
            "sigstore": {person: named for person, named in identities.items() if named},
            "generated": generated,
            "public_keys": made.keys,
        },
        [
            f"trust policy {made.trust} (what stands in it: {GUIDE})",
            f"secret keys  {made.directory / 'keys'} (mode 0700; give each to its owner alone)",
            "",
            "fingerprints, to be compared by another channel:",
            *(
                f"  {person:20} {fingerprint}{'  (its secret key was made here)' if person in generated else ''}"
                for person, fingerprint in made.fingerprints.items()
            ),
            *(f"  {person:20} Sigstore {one}" for person, named in identities.items() for one in named),
            *(f"  {person:20} passkey {key.fingerprint}" for person, keys in passkeys.items() for key in keys),
            "public keys of services and clients:",
            *(f"  {identifier:20} {key}" for identifier, key in made.keys.items()),
            "",
            f"next: constitution draft --environment {environment} --version 1.0.0 --previous none --out v1.0.0.json",
        ],
        json,
    )


@signs_keylessly
def sign(
    document: Annotated[Path, typer.Argument(help="The file to sign, byte for byte.")],
    *,
    key: OptionalKeyOption = None,
    keyless: "KeylessOptions | None" = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Where to write; default: the document's name + .sig or .sigstore.json."),
    ] = None,
    json: JsonOption = None,
) -> None:
    """Write a detached signature of a file: OpenPGP, or with --sigstore a bundle. Overwrites nothing."""
    from constitution.checksum import checksum_of
    from constitution_client.files import read_bytes, write_new

    data = read_bytes(document, what="document")
    target = out or document.with_name(document.name + (".sig" if keyless is None else ".sigstore.json"))
    kind, who, signature = _signature(data, signing_options(key, keyless=keyless))
    write_new(target, signature)
    result(
        {"signature": str(target), "checksum": checksum_of(data), kind: who},
        [
            f"signed   {document} {checksum_of(data)}",
            f"by {kind:<5} {who}",
            f"wrote    {target}",
            f"next: constitution push --path {shlex.quote(str(document))} --signature {shlex.quote(str(target))}",
        ],
        json,
    )


def _signature(data: bytes, signing: "SigningOptions") -> tuple[str, str, bytes]:
    """Sign a file's bytes; return what it was signed with ("key" or "identity"), which, and the signature."""
    from constitution_client.keys import PersonKey
    from constitution_client.settings import settings
    from signatures.openpgp import sign_detached

    if signing.keyless is not None:
        from constitution_client.keyless import KeylessSigner

        keyless = KeylessSigner.log_in(signing.keyless, settings())
        return "identity", ", ".join(keyless.identities), keyless.sign(data)
    if signing.key is None:
        raise typer.BadParameter("nobody signs: give --key, or --sigstore")
    signer = PersonKey.read(signing.key)
    return "key", signer.fingerprint, signer.sign(lambda tsk, password: sign_detached(data, tsk, password))


def verify_signature(
    document: Annotated[Path, typer.Option("--document", "--path", help="The signed file.")],
    signature: Annotated[list[Path], typer.Option("--signature", help="A detached signature; may be repeated.")],
    trust: Annotated[
        Path | None, typer.Option("--trust", help="trust.toml (env: TRUST_FILE, or by ENVIRONMENT_FILE).")
    ] = None,
    json: JsonOption = None,
) -> None:
    """Say who signed a file, or why not. Offline. Exit 0 if the trust policy's threshold is met, else 1."""
    from constitution.checksum import checksum_of
    from constitution.errors import UntrustedError
    from constitution.release import Kind
    from constitution_client.connections import trust_policy
    from constitution_client.files import read_bytes
    from constitution_client.settings import settings
    from signatures.verify import verify_document

    policy = trust_policy(settings(), trust)
    data = read_bytes(document, what="document")
    files = [read_bytes(path, what="signature") for path in signature]
    report = verify_document(data, files, policy, datetime.now(UTC))
    needed = policy.thresholds.for_document(Kind.UPDATE, first=_is_first(data))
    try:
        report.require(needed)
    except UntrustedError as error:
        refused: str | None = error.message
    else:
        refused = None
    names = {person.id: person.name for person in policy.people}
    result(
        {
            "trusted": refused is None,
            "checksum": checksum_of(data),
            "environment": policy.environment,
            "signers": list(report.signers),
            "needed": needed,
            "findings": [
                {
                    "signature": str(signature[finding.index]),
                    "kind": finding.kind,
                    "person": finding.person,
                    "counted": finding.counted,
                    "detail": finding.detail,
                }
                for finding in report.findings
            ],
        },
        [
            f"{'trusted' if refused is None else 'NOT TRUSTED'}  {document} {checksum_of(data)}",
            *(f"signed by {names.get(signer, signer)} ({signer})" for signer in report.signers),
            f"needed    {needed} maintainer{'s' if needed > 1 else ''} of {policy.environment}",
            *(
                f"  {'✓' if finding.counted else '✗'} {signature[finding.index]} ({finding.kind or 'neither kind'}): "
                f"{finding.detail}"
                for finding in report.findings
            ),
            *([] if refused is None else ["next: ask a maintainer of trust.toml to sign exactly these bytes"]),
        ],
        json,
    )
    raise typer.Exit(0 if refused is None else 1)


def _is_first(data: bytes) -> bool:
    """Say whether the file is a constitution that follows none; other files are signed as well.

    Read without the rules, whose libraries the client alone does not carry.
    """
    from constitution import strict_json

    try:
        content = strict_json.read(data)
    except strict_json.StrictJsonError:
        return False
    return isinstance(content, dict) and content.get("previous", "") is None


VERBS = {"init": init, "sign": sign, "verify-signature": verify_signature}
