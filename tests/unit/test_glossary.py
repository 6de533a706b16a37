"""The glossary explains the words of the domain, and points to modules that exist."""

import ast
import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
ROW = re.compile(r"^\| (?P<word>[^|]+) \| (?P<meaning>[^|]+) \| `(?P<module>[^`]+)` \|$", re.MULTILINE)
ROWS = [match.groupdict() for match in ROW.finditer((CHECKOUT / "docs" / "glossary.md").read_text())]


def test_each_word_is_there_once_and_in_order() -> None:
    words = [row["word"] for row in ROWS]
    assert len(words) > 40
    assert words == sorted(set(words))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["word"])
def test_the_module_of_a_word_exists_and_uses_it(row: dict[str, str]) -> None:
    module = CHECKOUT / row["module"]
    assert module.is_file()
    text = re.sub(r"[^a-z]+", " ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", module.read_text()).lower())
    assert re.search(rf"\b{row['word'].split()[0]}", text), f"{row['module']} never says {row['word']}"


def test_every_kind_standing_and_verdict_is_in_the_glossary() -> None:
    tree = ast.parse((CHECKOUT / "constitution" / "release.py").read_text())
    said = " ".join(f"{row['word']} {row['meaning']}" for row in ROWS)
    values = [
        str(node.value.value)
        for enum in tree.body
        if isinstance(enum, ast.ClassDef) and enum.name in {"Kind", "Standing", "Verdict"}
        for node in enum.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
    ]
    assert len(values) > 10
    assert [value for value in values if value not in said] == []
