"""One row is added to a page that belongs to others, and each byte of theirs stays."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.change_log import HEADING, with_row
from constitution.errors import InvalidRequestError

ROW = "| 1.0.0 | 1 | sha256:00 | completed | CR-1 | Zoë | now |"


def test_a_row_goes_under_the_last_row_of_an_existing_table_and_nothing_else_changes() -> None:
    text = b"# Security\n\nwords\n\n## Constitution change log\n\n| a |\n|---|\n| old |\n\n## After\n\n| not here |\n"
    changed = with_row(text, "k/1", "| new |")
    assert changed == text.replace(b"| old |\n", b"| old |\n| new <!-- k/1 --> |\n")
    assert with_row(changed, "k/1", "| new |") == changed


@pytest.mark.parametrize(("key", "row"), [("a b", "| x |"), ("k -->", "| x |"), ("k", "x"), ("k", "| x |\n| y |")])
def test_a_key_or_row_that_breaks_the_table_is_refused(key: str, row: str) -> None:
    with pytest.raises(InvalidRequestError):
        with_row(None, key, row)


PAGES = {
    "Latin-1, Windows line ends, a form feed": b"# Handbuch\r\n\r\nGepr\374ft.\r\n\014\r\nSeite zwei.\r\n",
    "a heading and no table": f"# S\n\n{HEADING}\n\nwords\n".encode(),
    "a heading at the end, without a line end": f"# S\n\n{HEADING}".encode(),
    "a table whose last row does not end": f"{HEADING}\r\n\r\n| a |\r\n|---|\r\n| old |".encode(),
    "line separators that are text": "# S\u2028x\u0085y\x0bz\x1cw\n".encode(),
    "line ends of old Macs": f"# S\r\r{HEADING}\r\r| a |\r|---|\r\rend\r".encode(),
    "mixed line ends": f"a\nb\r\nc\r\n{HEADING}\r\n\n| a |\n|---|\r\nend".encode(),
    "a byte order mark": "\ufeff# S\n".encode(),
    "UTF-16 little-endian": f"\ufeff# Prüfung\r\n{HEADING}\r\n| a |\r\n|---|\r\nend\r\n".encode("utf-16-le"),
    "UTF-16 big-endian": "\ufeff# Prüfung\n".encode("utf-16-be"),
    "no text at all": bytes(range(256)),
    "empty": b"",
}


def check(page: bytes) -> None:
    changed = with_row(page, "testing/1/completed", ROW)
    assert with_row(changed, "testing/1/completed", ROW) == changed
    added = len(changed) - len(page)
    assert added > 0
    cut = max(n for n in range(len(page) + 1) if page[:n] == changed[:n] and page[n:] == changed[n + added :])
    flat = changed[cut : cut + added].replace(b"\0", b"")
    assert flat.count(b"<!-- testing/1/completed -->") == 1
    # one line end more for each line, and all of the page's own kind
    own = re.search(rb"\r\n|\n|\r", page.replace(b"\0", b""))
    assert set(re.findall(rb"\r\n|\n|\r", flat)) == {own.group() if own else b"\n"}


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_each_byte_of_a_page_stays(page: bytes) -> None:
    check(page)


@given(
    st.lists(st.sampled_from([HEADING.encode(), b"| a |", b"|---|", b"\xfc", b"x", b"# A", b"\r\n", b"\n", b"\x0c"]))
)
def test_each_byte_of_any_page_stays(parts: list[bytes]) -> None:
    check(b"".join(parts))


def test_the_row_is_read_alike_in_the_pages_own_encoding() -> None:
    assert "Zoë" in with_row("# Prüfung\n".encode(), "k", ROW).decode()
    assert "Zo&#235;" in with_row("# Prüfung\n".encode("latin-1"), "k", ROW).decode("latin-1")
    assert "Zoë" in with_row("\ufeff# Prüfung\n".encode("utf-16-le"), "k", ROW).decode("utf-16-le")
