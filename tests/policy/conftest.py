"""Puts each case, invariant, rule and effect of each constitution under test into a test of its own.

Stands alone: nothing outside the gate's folder is used but the product itself, and no server is started.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1]))

from policy.cases import load_cases, load_invariants
from policy.drafts import Draft, under_test

if not all(draft.previous for draft in under_test()):
    collect_ignore = ["test_previous.py"]  # a first release replaces nothing


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give ``draft`` alone, or together with ``case``, ``invariant``, ``rule`` or ``effect`` of that draft."""
    if "draft" not in metafunc.fixturenames:
        return
    drafts = under_test()
    pairs: dict[str, Callable[[Draft], list[tuple[str, object]]]] = {
        "case": lambda d: [(case.id, case) for case in load_cases() if case.applies_to(d.rules)],
        "invariant": lambda _: [(invariant.id, invariant) for invariant in load_invariants()],
        "rule": lambda d: [(rule.id, rule) for rule in d.document.rules],
        "effect": lambda d: [(effect.value, effect) for effect in sorted(d.effects)],
    }
    for name, of in pairs.items():
        if name in metafunc.fixturenames:
            values = [pytest.param(d, value, id=f"{d.name}:{label}") for d in drafts for label, value in of(d)]
            metafunc.parametrize(("draft", name), values)
            return
    metafunc.parametrize("draft", [pytest.param(d, id=d.name) for d in drafts])


@pytest.fixture(scope="session", autouse=True)
def _served(record_testsuite_property: Callable[[str, object], None]) -> None:
    """Say in the JUnit file which bytes were looked at."""
    for draft in under_test():
        record_testsuite_property("served", draft.checksum)
