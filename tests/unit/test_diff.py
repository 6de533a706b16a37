"""What a document changes, in lines for people."""

import json
from typing import Any

from constitution.policy.diff import diff
from constitution.policy.document import Constitution, parse
from tests.unit.keyring import document, rule


def made(**changes: Any) -> Constitution:
    return parse(json.dumps(document(**changes)).encode())


def test_the_same_meaning_has_no_lines() -> None:
    assert diff(made(), made(title="Another title")) == ()
    assert diff(None, None) == ()


def test_every_change_has_its_line() -> None:
    other = rule("other", "allow", "false")
    old = made(rules=[rule("gone", "deny", "true"), rule("kept", "deny", 'tool == "a"'), other])
    new = made(
        version="1.1.0",
        default_effect="require_approval",
        expires_at="2099-01-01T00:00:00Z",
        principles=[{"id": "p", "text": "Be bold."}, {"id": "q", "text": "New."}],
        rules=[
            other,
            rule("kept", "allow", 'tool ==\n "b"', "high"),
            rule("new", "deny", "amount > 1.0"),
        ],
    )
    lines = diff(old, new)
    assert lines[:3] == (
        "version 1.0.0 -> 1.1.0",
        "default effect: deny -> require_approval",
        f"expires {old.expires_at.isoformat()} -> 2099-01-01T00:00:00+00:00",
    )
    assert set(lines[3:]) == {
        "rule removed: gone: deny (medium) when true",
        "rule added: new: deny (medium) when amount > 1.0",
        "rule changed: kept: effect: deny -> allow",
        "rule changed: kept: severity: medium -> high",
        'rule changed: kept: when: tool == "a" -> tool == "b"',
        "rules reordered: among matches of one effect and severity the first is reported",
        "principle changed: p: Be careful. -> Be bold.",
        "principle added: q: New.",
    }


def test_a_first_and_a_last_document_are_said() -> None:
    first = diff(None, made())
    assert first[0] == "first constitution, version 1.0.0"
    assert 'rule added: deny-it: deny (medium) when tool == "x"' in first
    assert diff(made(), None) == ("withdraw 1.0.0: no constitution is live, everything is denied",)
