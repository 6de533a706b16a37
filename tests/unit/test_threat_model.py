"""Each claim of docs/threat-model.md names the tests that show it; those tests are there."""

import ast
import re
from pathlib import Path

import pytest

from tests.mutants.__main__ import MUTANTS
from tests.mutants.mutant import Mutant

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = (CHECKOUT / "docs/threat-model.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::([\w:]+)`", PAGE)))
ROWS = {
    cells[1].strip(): cells[-2] for line in PAGE.splitlines() if line.startswith("| ") and (cells := line.split("|"))
}


def test_the_page_names_tests() -> None:
    assert len(NAMED) > 30


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_every_test_that_the_page_names_is_there(file: str, name: str) -> None:
    nodes: list[ast.stmt] = ast.parse((CHECKOUT / file).read_text()).body
    *classes, function = name.split("::")
    for wanted in classes:
        (found,) = [node for node in nodes if isinstance(node, ast.ClassDef) and node.name == wanted]
        nodes = found.body
    assert function in {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.attack)
def test_each_defence_that_is_taken_away_is_where_it_was_and_on_the_page(mutant: Mutant) -> None:
    for edit in mutant.edits:
        assert (CHECKOUT / edit.file).read_text().count(edit.text) == 1, edit.text
    for test in mutant.tests:
        assert f"`{test.partition('[')[0]}`" in ROWS[mutant.attack]
