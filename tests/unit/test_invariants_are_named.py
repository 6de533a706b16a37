"""Each invariant of docs/architecture.md stands, by its number, beside the product code that enforces it."""

import re
from collections import defaultdict
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
PRODUCT = ("constitution", "signatures", "adapters", "activities", "workflows", "services", "constitution_client")
SECTION = (CHECKOUT / "docs" / "architecture.md").read_text().partition("## 6. Invariants\n")[2].partition("\n## ")[0]
INVARIANTS = tuple(int(number) for number in re.findall(r"^(\d+)\. ", SECTION, re.MULTILINE))
NAMED: dict[int, list[str]] = defaultdict(list)
for _folder in PRODUCT:
    for _module in sorted((CHECKOUT / _folder).rglob("*.py")):
        for _number in re.findall(r"\binvariants? (\d+)", _module.read_text()):
            NAMED[int(_number)].append(str(_module.relative_to(CHECKOUT)))


def test_the_invariants_are_numbered_without_a_gap() -> None:
    assert len(INVARIANTS) > 5
    assert list(INVARIANTS) == list(range(1, len(INVARIANTS) + 1))


@pytest.mark.parametrize("number", INVARIANTS)
def test_an_invariant_is_named_where_it_is_enforced(number: int) -> None:
    assert NAMED[number], f"no product module names invariant {number}"


def test_no_module_names_an_invariant_that_is_not_in_the_list() -> None:
    unknown = {number: modules for number, modules in NAMED.items() if modules and number not in INVARIANTS}
    assert unknown == {}
