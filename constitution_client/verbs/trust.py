"""Verbs about keys and signatures, all offline: init, sign, verify-signature."""

import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from constitution_client.output import JsonOption, result


def init(  # noqa: PLR0917 - typer reads the options from the signature
    directory: Annotated[Path, typer.Option("--directory", help="Where trust/ and keys/ are made.")],
    environment: Annotated[str, typer.Option("--environment", help="The environment's name.")] = "development",
    maintainer: Annotated[
        list[str] | None,
        typer.Option(metavar="ID=CERTIFICATE", help="Signs documents; a public OpenPGP file. May be repeated."),
    ] = None,
    author: Annotated[
        list[str] | None,
        typer.Option(metavar="ID=CERTIFICATE", help="Files change requests. Default: the maintainers."),
    ] = None,
    board: Annotated[
        list[str] | None, typer.Option(metavar="ID=CERTIFICATE", help="Approves. May be repeated.")
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
    from constitution_client.people import GUIDE, chosen_thresholds, named_people

    people = named_people(
        maintainers=maintainer or (),
        authors=author or (),
        board=board or (),
        generate=generate,
        environment=environment,
    )
    made = make_trust(directory, environment, people=people, thresholds=chosen_thresholds(threshold or ()))
    generated = [person.id for person in people if person.certificate is None]
    result(
        {
            "environment": environment,
            "trust": str(made.trust),
            "keys": str(made.directory / "keys"),
            "fingerprints": made.fingerprints,
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
            "public keys of services and clients:",
            *(f"  {identifier:20} {key}" for identifier, key in made.keys.items()),
            "",
            f"next: constitution draft --environment {environment} --version 1.0.0 --previous none --out v1.0.0.json",
        ],
        json,
    )


def sign(
    document: Annotated[Path, typer.Argument(help="The file to sign, byte for byte.")],
    key: Annotated[
        Path, typer.Option("--key", envvar="CONSTITUTION_KEY_FILE", help="Your OpenPGP secret key (mode 0600).")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Where to write; default: the document's name + .sig.")
    ] = None,
    json: JsonOption = None,
) -> None:
    """Write a detached OpenPGP signature of a file. Overwrites nothing."""
    from constitution.checksum import checksum_of
    from constitution_client.files import read_bytes, write_new
    from constitution_client.keys import PersonKey
    from signatures.openpgp import sign_detached

    data = read_bytes(document, what="document")
    signer = PersonKey.read(key)
    signature = signer.sign(lambda tsk, password: sign_detached(data, tsk, password))
    target = out or document.with_name(document.name + ".sig")
    write_new(target, signature)
    result(
        {"signature": str(target), "checksum": checksum_of(data), "key": signer.fingerprint},
        [
            f"signed   {document} {checksum_of(data)}",
            f"by key   {signer.fingerprint}",
            f"wrote    {target}",
            f"next: constitution push --path {shlex.quote(str(document))} --signature {shlex.quote(str(target))}",
        ],
        json,
    )


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
    from constitution_client.connections import trust_policy
    from constitution_client.files import read_bytes
    from constitution_client.settings import settings
    from signatures.verify import verify_document

    policy = trust_policy(settings(), trust)
    data = read_bytes(document, what="document")
    files = [read_bytes(path, what="signature") for path in signature]
    report = verify_document(data, files, policy, datetime.now(UTC))
    needed = policy.thresholds.document
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


VERBS = {"init": init, "sign": sign, "verify-signature": verify_signature}
