"""Where a release is archived, and what people read there. Pure. Every generated Markdown opens with the pledge."""

import re

from activities.blocks import when
from activities.text import markdown_text
from constitution.errors import InvalidRequestError
from constitution.past import Past
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


def change_log_row(release: Release | Past, outcome: str, approvers: tuple[str, ...]) -> tuple[str, str]:
    """Return (key, row) of the change log: version, generation, checksum, outcome, approvers, date."""
    cells = (
        release.version or "withdrawn",
        str(release.generation),
        release.checksum or "—",
        outcome.replace("_", " "),
        ", ".join(approvers or release.approvers) or "—",
        when(release.effective_at),
    )
    key = f"{release.environment}/{release.generation}/{outcome}"
    return key, "| " + " | ".join(markdown_text(cell) for cell in cells) + " |"


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
- `outcome-*.json`: what became of it; `histories/`: the closed workflow histories.
- `manifest.json`: the checksum of every file here.
"""
