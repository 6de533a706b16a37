"""The change log of ``docs/SomaAgentHub_Security.md``: one table row per key, whatever else people write around it."""

import re

from constitution.errors import InvalidRequestError

PLEDGE = (
    "> Pledge: nothing here is mocked, imitated, bypassed or invented; "
    "real servers, real data, mathematics anyone can check."
)
HEADING = "## Constitution change log"
_TABLE = (
    "| version | generation | checksum | outcome | approvers | date |",
    "|---|---|---|---|---|---|",
)
_KEY = re.compile(r"^[A-Za-z0-9._/-]{1,200}$")


def with_row(text: str | None, key: str, row: str) -> str:
    """Return the document with ``row`` in its table, unchanged if a row with ``key`` is there already.

    Args:
        text: the document as it is; None: there is none yet.
        key: names the row for ever; kept in the row as an HTML comment, which Markdown does not show.
        row: ``| … |``, one line, already escaped.

    Raises:
        InvalidRequestError: the key or the row could break the table.
    """
    if not _KEY.fullmatch(key) or "--" in key:
        raise InvalidRequestError(f"not a change-log key: {key[:80]!r}")
    if not row.startswith("|") or not row.endswith("|") or "<!--" in row or len(row.splitlines()) != 1:
        raise InvalidRequestError(f"not a table row: {row[:80]!r}")
    marker = f"<!-- {key} -->"
    if text is None:
        text = f"{PLEDGE}\n\n# SomaAgentHub security\n"
    if marker in text:
        return text
    lines = text.splitlines()
    if HEADING not in lines:
        lines += ["", HEADING, "", *_TABLE]
    end = lines.index(HEADING) + 1
    last = None
    while end < len(lines) and not lines[end].startswith("#"):
        if lines[end].startswith("|"):
            last = end
        end += 1
    if last is None:
        at = lines.index(HEADING) + 1
        lines[at:at] = ["", *_TABLE]
        last = at + len(_TABLE)
    lines.insert(last + 1, f"{row[:-1].rstrip()} {marker} |")
    return "\n".join(lines) + "\n"
