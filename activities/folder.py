"""The archive folder of a release, and its pages for people. Pure. Every generated Markdown opens with the pledge."""

import re

from activities.blocks import when
from activities.text import markdown_text
from constitution.archived_outcome import is_backed, record_of
from constitution.errors import ConflictError, InvalidRequestError
from constitution.release import Release

ROOT = "docs/legal/constitution"
PLEDGE = (
    "> Pledge: nothing here is mocked, imitated, bypassed or invented; "
    "real servers, real data, mathematics anyone can check."
)
_VERSION = re.compile(r"^[0-9]{1,9}\.[0-9]{1,9}\.[0-9]{1,9}$")


def folder_of(version: str | None, generation: int) -> str:
    """Return a release's folder: ``docs/legal/constitution/<version>-<generation>``, ``withdrawn-…`` without one.

    Raises:
        InvalidRequestError: the version is none: it could lead out of the folder.
    """
    if version is not None and not _VERSION.fullmatch(version):
        raise InvalidRequestError(f"{version[:64]!r} is no version")
    return f"{ROOT}/{version or 'withdrawn'}-{generation:d}"


def denial_folder(update_id: str) -> str:
    """Return the folder of a denied update or rollback. ``update_id`` is a UUID: it leads nowhere else."""
    return f"{ROOT}/rejected-{update_id}"


def denial_readme(folder: str) -> str:
    """Return the README of a denial's folder."""
    return f"""{PLEDGE}

# {folder.rpartition("/")[2]}: the board said no, and nothing went live

- `outcome-rejected.json`: who denied it, when and why, and which run it was.
- `approvals/`, `change-request.json`: what the board and the author signed (DSSE envelopes), the denial last.
- `manifest.json`: the checksum of every file here; `manifest.dsse.json`: who wrote it, signed.
"""


def refusal_readme(folder: str) -> str:
    """Return the README of the folder of what was refused without a denial."""
    return f"""{PLEDGE}

# {folder.rpartition("/")[2]}: refused, and nothing went live

- `outcome-rejected.json`: why, when, and which run it was, as the runbook's worker says.
- `change-request.json`: what the author signed (DSSE envelope).
- `manifest.json`: the checksum of every file here; `manifest.dsse.json`: who wrote it, signed.
"""


def require_backed(release: Release, outcome: str) -> None:
    """Demand that the service's own record says this outcome, before it is announced or archived.

    Raises:
        ConflictError: the release is another kind's, nothing confirmed it, or nothing undid it.
    """
    if not is_backed(release, outcome):
        standing = release.standing.value if release.standing else "unconfirmed"
        raise ConflictError(f"generation {release.generation} is {standing}: it is not {outcome.replace('_', ' ')}")


def change_log_key(environment: str, what: int | str, outcome: str) -> str:
    """Return the permanent name of a row; ``what`` is a generation, or the update id of a denial."""
    return f"{environment}/{what}/{outcome}"


def change_log_row(release: Release, outcome: str, by: tuple[str, ...]) -> tuple[str, str]:
    """Return (key, row) of the change log. Its date is that of the outcome, not of the publish."""
    record = record_of(release, outcome)
    cells = (
        release.version or "none",
        str(release.generation),
        release.checksum or "—",
        outcome.replace("_", " "),
        release.change_request or "—",
        ", ".join(by or release.approvers) or "—",
        when(record.recorded_at if record else release.effective_at),
    )
    return change_log_key(release.environment, release.generation, outcome), table_row(cells)


def table_row(cells: tuple[str, ...]) -> str:
    """Return cells, which may be hostile, as one row of a Markdown table."""
    return "| " + " | ".join(markdown_text(cell) for cell in cells) + " |"


def readme(release: Release) -> str:
    """Return the folder's README: what each file is, and how to check it. Depends on the release alone."""
    facts = (
        ("environment", release.environment),
        ("generation", str(release.generation)),
        ("kind", release.kind.value),
        ("version", release.version or "none: a withdrawal"),
        ("checksum", release.checksum or "none: a withdrawal"),
        ("in force since", when(release.effective_at)),
        ("change request", release.change_request or "—"),
        ("approvers", ", ".join(release.approvers) or "—"),
        ("reason", release.reason),
        ("event", release.event_id),
        ("update", release.update_id),
    )
    rows = "\n".join(f"| {name} | {markdown_text(value, 1000)} |" for name, value in facts)
    return f"""{PLEDGE}

# Constitution {release.version or "withdrawn"}, generation {release.generation}

| | |
|---|---|
{rows}

- `document.json`: the document's exact bytes; `sha256sum document.json` gives the checksum above.
- `signatures/`: its detached signatures; `constitution verify-signature` checks them offline.
- `approvals/`, `change-request.json`: what the board and the author signed (DSSE envelopes).
- `evidence/`: the regression gate's results, and the watch's samples and e-values.
- `event-*.json`: the records on the topic `constitution.updated`.
- `release-statement.json`: what makes consumers obey (DSSE envelope of constitution-service).
- `audit-head-*.json`: how far the audit stream reached then, signed; `constitution audit verify --head` compares it.
- `attestations/`, `orders/`: what assessors signed about it, and the signed orders to its run (DSSE envelopes).
- `reissues/`: the board's signatures that let come again what had been undone as harmful.
- `outcome-*.json`: what became of it; `histories/`: the closed workflow histories.
- `receipt.json`: all of it in one statement, signed by constitution-service; `constitution receipt verify .` checks it.
- `receipt-manifest.json`: every file that was here when that was signed; `manifest.json`: the checksum of every file;
  `manifest.dsse.json`: who wrote that, signed anew with each commit.
"""
