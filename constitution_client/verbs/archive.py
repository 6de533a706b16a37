"""``archive verify``: the whole legal archive, offline, with public keys alone."""

from pathlib import Path
from typing import Annotated

import typer

from constitution_client.output import JsonOption, result
from constitution_client.verbs.receipt import EarlierOption, TrustOption, of_former_keys

FOLDERS = Path("docs/legal/constitution")
CHANGE_LOG = Path("docs/SomaAgentHub_Security.md")

app = typer.Typer(no_args_is_help=True, help="The legal archive: is it whole, and whose word is it?")


@app.callback()
def _archive() -> None:
    """The legal archive: is it whole, and whose word is it?"""


@app.command()
def verify(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A checkout of the archive's repository.")],
    *,
    head: Annotated[
        Path | None,
        typer.Option("--head", help="The newest receipt, from the artifact store: the archive must hold it."),
    ] = None,
    trust: TrustOption = None,
    earlier: EarlierOption = None,
    json: JsonOption = None,
) -> None:
    """Check every folder, the chain of receipts and the change log; name the first file that is wrong.

    Asks no server. Exit 0 if all is as it was signed, else 1. Git keeps the files; it vouches for nothing here.
    """
    from constitution_client.archive_files import files_of, receipts_in
    from constitution_client.connections import trust_policy
    from constitution_client.files import FileRefusedError, read_bytes
    from constitution_client.settings import settings
    from signatures.archive_verify import ArchiveCheck

    policy = trust_policy(settings(), trust)
    root = directory.resolve() / FOLDERS
    if not root.is_dir():
        raise FileRefusedError(
            f"{directory} holds no {FOLDERS}", hint="give a checkout: git clone ARCHIVE DIR; then: archive verify DIR"
        )
    newest = None if head is None else read_bytes(head, what="head")
    before = [trust_policy(settings(), path) for path in earlier or ()]
    check = ArchiveCheck(policy, receipts_in(root), newest, before)
    reports = [check.folder(path.name, files_of(path) if path.is_dir() else {}) for path in sorted(root.iterdir())]
    log = directory.resolve() / CHANGE_LOG
    reports.append(check.whole(read_bytes(log, what="change log") if log.exists() else None))
    wrong = [(report.folder, line) for report in reports for line in report.lines if not line.ok]
    first = f"{wrong[0][0]}/{wrong[0][1].what}" if wrong else None
    lines = [line for report in reports if not report.valid for line in report.text()]
    if first is None:
        lines += [f"{line.what}: {line.message}" for line in reports[-1].lines]
        lines.append(f"valid: {len(reports) - 1} folders")
    else:
        bad = sum(not report.valid for report in reports)
        lines.append(f"not valid: {bad} of {len(reports)} parts; the first that is wrong is {first}")
        lines += of_former_keys(
            [line.what for _, line in wrong], ["archive", "verify", str(directory)], trust=trust, head=head
        )
    result(
        {"valid": not wrong, "first_wrong": first, "parts": [report.model_dump(mode="json") for report in reports]},
        lines,
        json,
    )
    raise typer.Exit(1 if wrong else 0)
