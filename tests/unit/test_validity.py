"""Whether a document may follow what is live: by kind."""

import json
from datetime import timedelta
from typing import Any

import pytest

from constitution.policy.document import Constitution, parse
from constitution.policy.validity import check
from constitution.release import Kind, Previous
from tests.unit.keyring import NOW, document

LIVE = Previous(version="1.0.0", checksum="sha256:" + "a" * 64)


def successor(**changes: Any) -> Constitution:
    fields = {"version": "1.1.0", "previous": LIVE.model_dump(), **changes}
    return parse(json.dumps(document(**fields)).encode())


def codes(draft: Constitution, kind: Kind = Kind.UPDATE, **situation: Any) -> list[str]:
    usual: dict[str, Any] = {"environment": "development", "current": LIVE, "highest_version": "1.0.0", "now": NOW}
    return [issue.code for issue in check(draft, kind=kind, **{**usual, **situation})]


def test_a_successor_may_go_live() -> None:
    assert codes(successor()) == []


def test_a_first_release_follows_nothing() -> None:
    first = parse(json.dumps(document()).encode())
    assert codes(first, current=None, highest_version=None) == []
    assert codes(first) == ["version-order", "previous"]


@pytest.mark.parametrize(
    ("situation", "expected"),
    [
        ({"environment": "production"}, ["environment"]),
        ({"highest_version": "1.1.0"}, ["version-order"]),
        ({"highest_version": "1.10.0"}, ["version-order"]),
        ({"current": None}, ["previous"]),
        ({"current": Previous(version="1.0.0", checksum="sha256:" + "b" * 64)}, ["previous"]),
        ({"now": NOW + timedelta(days=364, hours=12)}, ["about-to-expire"]),
        ({"now": NOW + timedelta(days=366)}, ["expired"]),
        ({"now": NOW - timedelta(hours=2)}, ["issued-in-future"]),
    ],
)
def test_an_update_is_held_to_every_rule(situation: dict[str, Any], expected: list[str]) -> None:
    assert codes(successor(), **situation) == expected


def test_a_rollback_is_held_to_the_environment_alone() -> None:
    late = {"now": NOW + timedelta(days=400), "highest_version": "9.0.0", "current": None}
    assert codes(successor(), Kind.ROLLBACK, **late) == []
    assert codes(successor(), Kind.ROLLBACK, environment="production", **late) == ["environment"]


def test_a_reissue_is_not_held_to_succession_but_to_its_dates() -> None:
    assert codes(successor(), Kind.REISSUE, highest_version="1.1.0", current=None) == []
    assert codes(successor(), Kind.REISSUE, now=NOW + timedelta(days=400)) == ["expired"]


def test_all_problems_are_listed() -> None:
    found = codes(successor(), environment="x", highest_version="2.0.0", current=None, now=NOW + timedelta(days=400))
    assert found == ["environment", "version-order", "previous", "expired"]
