"""When two documents have the same rules: however they are written, and by nothing that decides."""

import json
from typing import Any

import pytest

from constitution.policy.document import Constitution, parse
from constitution.policy.same_rules import canonical, rules_digest
from constitution.templates import TEMPLATES
from tests.unit.keyring import document, rule

RULES = [
    rule("a", "deny", 'tool == "shell" && (amount > 100.0 || action == "pay")', "high"),
    rule("b", "allow", 'tool in ["read", "list"]'),
    rule("c", "require_approval", 'prompt.matches("(?i)delete") && tenant != ""', "critical"),
]


def made(**changes: Any) -> Constitution:
    return parse(json.dumps(document(**{"rules": RULES, **changes})).encode())


def changed(position: int, **changes: Any) -> list[dict[str, Any]]:
    return [{**said, **(changes if number == position else {})} for number, said in enumerate(RULES)]


SAME: dict[str, dict[str, Any]] = {
    "another version": {"version": "9.9.9"},
    "another title, summary and dates": {"title": "T", "summary": "S", "expires_at": "2099-01-01T00:00:00Z"},
    "another predecessor": {"version": "2.0.0", "previous": {"version": "1.0.0", "checksum": "sha256:" + "b" * 64}},
    "other principles": {"principles": [{"id": "p", "text": "Be otherwise."}]},
    "reordered rules": {"rules": RULES[::-1]},
    "a rule twice": {"rules": [*RULES, {**RULES[0], "id": "again"}]},
    "renamed rules": {"rules": [{**said, "id": f"x-{said['id']}"} for said in RULES]},
    "other messages": {"rules": changed(0, message="no")},
    "reordered keys": {"rules": [dict(reversed(said.items())) for said in RULES]},
    "white space": {"rules": changed(0, when=' tool=="shell"\n && (amount>100.0||action == "pay")\t')},
    "comments": {"rules": changed(0, when='tool == "shell" // why\n && (amount > 100.0 || action == "pay")')},
    "quotes": {"rules": changed(0, when="tool == 'shell' && (amount > 100.00 || action == 'pay')")},
    "parentheses": {"rules": changed(0, when='((tool == "shell")) && ((amount > 100.0) || (action == "pay"))')},
    "the other way round": {"rules": changed(0, when='(action == "pay" || amount > 100.0) && tool == "shell"')},
    "said twice": {"rules": changed(1, when='tool in ["read", "list"] || tool in ["read", "list"]')},
}

OTHER: dict[str, dict[str, Any]] = {
    "another default": {"default_effect": "require_approval"},
    "another effect": {"rules": changed(1, effect="deny")},
    "another severity": {"rules": changed(0, severity="low")},
    "another number": {"rules": changed(0, when='tool == "shell" && (amount > 100.5 || action == "pay")')},
    "another word": {"rules": changed(0, when='tool == "shelf" && (amount > 100.0 || action == "pay")')},
    "another field": {"rules": changed(0, when='agent == "shell" && (amount > 100.0 || action == "pay")')},
    "another operator": {"rules": changed(0, when='tool == "shell" && (amount >= 100.0 || action == "pay")')},
    "another grouping": {"rules": changed(0, when='(tool == "shell" && amount > 100.0) || action == "pay"')},
    "the list's order": {"rules": changed(1, when='tool in ["list", "read"]')},
    "another pattern": {"rules": changed(2, when='prompt.matches("(?i)Delete") && tenant != ""')},
    "another method": {"rules": changed(2, when='prompt.contains("(?i)delete") && tenant != ""')},
    "a rule less": {"rules": RULES[:2]},
    "a rule more": {"rules": [*RULES, rule("d", "deny", "false")]},
}


@pytest.mark.parametrize("name", SAME)
def test_the_same_rules_are_found_however_they_are_written(name: str) -> None:
    assert rules_digest(made(**SAME[name])) == rules_digest(made())


@pytest.mark.parametrize("name", OTHER)
def test_whatever_decides_otherwise_is_another_rule(name: str) -> None:
    assert rules_digest(made(**OTHER[name])) != rules_digest(made())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('["a", "b"].exists(x, x == tool)', '["a", "b"].all(x, x == tool)'),
        ("1 < 2", "1 < 3"),
        ("true", "false"),
        ("1u < 2u", "1 < 2"),
        ('b"a" == b"b"', '"a" == "b"'),
        ('{"a": 1}["a"] == 1', '{"b": 1}["a"] == 1'),
        ('{"a": 1}["a"] == 1', '{"a": 2}["a"] == 1'),
        ('tool == "a" ? true : false', 'tool == "a" ? false : true'),
        ("!(amount > 1.0)", "amount > 1.0"),
    ],
)
def test_every_form_of_the_language_counts(one: str, other: str) -> None:
    assert canonical(one) != canonical(other)
    assert canonical(one) == canonical(f" ( {one} ) ")


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_shipped_template_is_itself_shuffled_and_no_other(name: str) -> None:
    from constitution.templates import template

    said = json.loads(template(name))
    filled = {
        **said,
        **{key: value for key, value in document().items() if key not in said or key in {"environment", "version"}},
        "rules": said["rules"],
        "principles": said["principles"],
        "default_effect": said["default_effect"],
    }
    shuffled = {**filled, "version": "7.0.0", "rules": said["rules"][1::2] + said["rules"][::2]}
    assert rules_digest(parse(json.dumps(filled).encode())) == rules_digest(parse(json.dumps(shuffled).encode()))
    less = {**filled, "rules": said["rules"][1:]}
    assert rules_digest(parse(json.dumps(filled).encode())) != rules_digest(parse(json.dumps(less).encode()))
