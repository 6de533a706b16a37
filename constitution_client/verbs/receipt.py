"""``receipt verify`` and ``receipt show``: a release's folder in the legal archive, offline, with public keys alone."""

import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated

import typer

from constitution_client.output import JsonOption, result

app = typer.Typer(no_args_is_help=True, help="The receipt of a release: its whole story, checked offline.")

DirectoryArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="A release's folder in the archive, or the folder that holds them all.")
]
TrustOption = Annotated[
    Path | None, typer.Option("--trust", help="trust.toml (env: TRUST_FILE, or by ENVIRONMENT_FILE).")
]

EarlierOption = Annotated[
    list[Path] | None,
    typer.Option("--earlier", help="A trust.toml that was in force before, as you kept it: its keys count, too."),
]


@app.callback()
def _receipt() -> None:
    """The receipt of a release: its whole story, checked offline."""


@app.command()
def verify(
    directory: DirectoryArgument,
    *,
    head: Annotated[
        Path | None,
        typer.Option("--head", help="The newest receipt, from the artifact store: the archive must hold it."),
    ] = None,
    trust: TrustOption = None,
    earlier: EarlierOption = None,
    json: JsonOption = None,
) -> None:
    """Check a release's folder, byte for byte, against its signed receipt. Exit 0 if all is as sealed, else 1.

    Asks no server. Folders beside it are read for the chain of receipts, and for what later receipts list of it.
    """
    from constitution_client.archive_files import files_of, receipts_in
    from constitution_client.connections import trust_policy
    from constitution_client.files import read_bytes
    from constitution_client.settings import settings
    from signatures.receipt_verify import verify_folder

    policy = trust_policy(settings(), trust)
    newest = None if head is None else read_bytes(head, what="head")
    reports = [
        verify_folder(
            files_of(folder),
            policy,
            neighbours=tuple(receipts_in(folder.parent, but=folder)),
            head=newest,
            name=folder.name,
            earlier=[trust_policy(settings(), path) for path in earlier or ()],
        )
        for folder in _folders(directory)
    ]
    whole = all(report.valid for report in reports)
    wrong = [line.what for report in reports for line in report.lines if not line.ok]
    result(
        {"valid": whole, "folders": [report.model_dump(mode="json") for report in reports]},
        [
            *(line for report in reports for line in report.text()),
            *of_former_keys(wrong, ["receipt", "verify", str(directory)], trust=trust, head=head),
        ],
        json,
    )
    raise typer.Exit(0 if whole else 1)


@app.command()
def show(
    directory: DirectoryArgument,
    *,
    trust: TrustOption = None,
    earlier: EarlierOption = None,
    json: JsonOption = None,
) -> None:
    """Tell a release as its receipt has it: who, what, when, why, and how it ended. Checks the receipt alone.

    Exit 1 if constitution-service did not sign it.
    """
    from constitution.receipt import RECEIPT
    from constitution.receipt_story import story
    from constitution_client.connections import trust_policy
    from constitution_client.files import read_bytes
    from constitution_client.settings import settings
    from signatures.receipt_verify import open_receipt

    policies = [trust_policy(settings(), path) for path in (trust, *(earlier or ()))]
    receipts = [open_receipt(read_bytes(folder / RECEIPT, what="receipt"), policies) for folder in _folders(directory)]
    lines = [line for receipt in receipts for line in (*story(receipt), "")]
    result([receipt.model_dump(mode="json") for receipt in receipts], lines[:-1], json)


def of_former_keys(wrong: Collection[str], typed: Sequence[str], *, trust: Path | None, head: Path | None) -> list[str]:
    """Return what to try where a signature is wrong: its key may have left the trust policy since.

    Args:
        wrong: the files that are wrong.
        typed: the command, without its options.
        trust: as typed.
        head: as typed.
    """
    from constitution.receipt import MANIFEST_SIGNATURE, RECEIPT

    if not {RECEIPT, MANIFEST_SIGNATURE}.intersection(wrong):
        return []
    options = [text for name, path in (("--trust", trust), ("--head", head)) if path for text in (name, str(path))]
    again = shlex.join(["constitution", *typed, *options])
    return [f"if a key has left the trust policy since, with the trust.toml that was in force: {again} --earlier FILE"]


def _folders(directory: Path) -> list[Path]:
    """Return the folder of a release, or every one in a folder of them, lowest generation first."""
    from constitution.receipt import MANIFEST, RECEIPT
    from constitution_client.files import FileRefusedError

    directory = directory.resolve()
    if (directory / RECEIPT).exists() or (directory / MANIFEST).exists():
        return [directory]
    found = [path.parent for path in directory.glob(f"*/{RECEIPT}")]
    if not found:
        raise FileRefusedError(
            f"{directory} holds no release's folder", hint="give docs/legal/constitution/… of the archive's repository"
        )
    return sorted(found, key=lambda folder: int(end) if (end := folder.name.rpartition("-")[2]).isdigit() else 0)
