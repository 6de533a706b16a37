"""The change log of ``docs/SomaAgentHub_Security.md``: one table row per key, among other people's text."""

import re

from constitution.errors import InvalidRequestError

PLEDGE = (
    "> Pledge: nothing here is mocked, imitated, bypassed or invented; "
    "real servers, real data, mathematics anyone can check."
)
HEADING = "## Constitution change log"
_TABLE = (
    "| version | generation | checksum | outcome | change request | by | date |",
    "|---|---|---|---|---|---|---|",
)
_KEY = re.compile(r"^[A-Za-z0-9._/-]{1,200}$")
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+")  # CommonMark's line ends, and no others: a form feed is text
_UTF_16 = ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))


def with_row(document: bytes | None, key: str, row: str) -> bytes:
    """Return the document with ``row`` in its table, unchanged if a row with ``key`` is there already.

    Other people own the document: each of its bytes stays, in any encoding and with any line ends.

    Args:
        document: as it is; None: there is none yet.
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
    if document is None:
        document = f"{PLEDGE}\n\n# SomaAgentHub security\n".encode()
    text, codec = _lossless(document)
    if marker in text:
        return document
    if codec == _BYTES:
        row = _as_bytes(row, document)
    ends = re.search(r"\r\n|\n|\r", text)
    return _inserted(text, f"{row[:-1].rstrip()} {marker} |", ends.group() if ends else "\n").encode(codec)


_BYTES = "latin-1"
"""Maps each byte to one character and back: text of any encoding that extends ASCII survives it unread."""


def _lossless(document: bytes) -> tuple[str, str]:
    """Return the document as text, and the codec that gives back the same bytes."""
    for mark, codec in _UTF_16:
        if document.startswith(mark) and len(document) % 2 == 0:
            text = document.decode(codec, "surrogatepass")
            if text.encode(codec, "surrogatepass") == document:
                return text, codec
    return document.decode(_BYTES), _BYTES


def _as_bytes(row: str, document: bytes) -> str:
    """Return the row, one character a byte: UTF-8 in a UTF-8 document; else ASCII, which every reader decodes alike."""
    try:
        document.decode("utf-8")
    except UnicodeDecodeError:
        return row.encode("ascii", "xmlcharrefreplace").decode("ascii")
    return row.encode().decode(_BYTES)


def _inserted(text: str, row: str, end: str) -> str:
    lines = _LINE.findall(text)
    bare = [line.rstrip("\r\n") for line in lines]
    if HEADING not in bare:
        return (
            text + ("" if not lines or lines[-1] != bare[-1] else end) + end.join(["", HEADING, "", *_TABLE, row, ""])
        )
    start = bare.index(HEADING) + 1
    stop = next((n for n in range(start, len(bare)) if bare[n].startswith("#")), len(bare))
    rows = [n for n in range(start, stop) if bare[n].startswith("|")]
    at, added = (rows[-1] + 1, [row]) if rows else (start, ["", *_TABLE, row])
    before, after = "".join(lines[:at]), "".join(lines[at:])
    if lines[at - 1] == bare[at - 1]:  # the last line, and it does not end: the end that it lacks goes before the row
        return before + end + end.join(added)
    return before + "".join(line + end for line in added) + after
