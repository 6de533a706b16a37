"""A network that is down makes every target a finding: a few are named, all are counted."""

import pytest

from activities.reconcile.target_checks import MOST_NAMED, _bounded
from constitution.reconciliation import Finding


def findings(code: str, count: int) -> list[Finding]:
    return [Finding(code=code, where=f"engine-{n}", message="no answer", command="make status") for n in range(count)]


@pytest.mark.parametrize("count", [0, 1, MOST_NAMED])
def test_a_few_are_told_as_they_are(count: int) -> None:
    few = findings("target-behind", count)
    assert _bounded(few) == tuple(few)


def test_of_many_the_first_are_named_and_one_counts_the_others() -> None:
    silent, behind = findings("target-unreachable", 50_000), findings("target-behind", 2)
    told = _bounded([*silent, *behind])
    assert told[:MOST_NAMED] == tuple(silent[:MOST_NAMED])
    others = told[MOST_NAMED]
    assert (others.code, others.where, others.stands_for) == (
        "target-unreachable", "other targets", 50_000 - MOST_NAMED,
    )  # fmt: skip
    assert others.message.startswith(f"49,950 more targets, the first of them engine-{MOST_NAMED}: no answer")
    assert told[MOST_NAMED + 1 :] == tuple(behind)
    assert sum(finding.stands_for for finding in told) == 50_002
