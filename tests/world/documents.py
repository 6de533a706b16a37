"""Constitutions for tests, and requests of which everybody must say the same."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from constitution.api import LoadResult
from constitution.policy.golden import Vector
from constitution.release import Previous
from tests.world.files import ENVIRONMENT

NOON = "2026-11-22T12:00:00Z"
MIDNIGHT = "2026-11-22T00:30:00Z"


def rule(identifier: str, effect: str, when: str, severity: str = "medium", message: str = "") -> dict[str, str]:
    """A rule of a document."""
    return {
        "id": identifier,
        "principle": "care",
        "effect": effect,
        "when": when,
        "severity": severity,
        "message": message or f"rule {identifier} applies",
    }


RULES = (
    rule("no-secrets", "deny", 'data_class == "secret"', "critical"),
    rule("large-sums", "require_approval", "amount > 1000.0", "high"),
    rule("reading", "allow", 'action == "read"', "low"),
    rule("acme-at-night", "deny", 'tenant == "acme" && time.getHours() < 6', "medium"),
    rule("fragile", "deny", 'action == "divide" && 1 / int(amount) > 0', "medium"),
)

VECTORS = tuple(
    Vector.model_validate(vector)
    for vector in (
        {"name": "reading", "request": {"tenant": "global", "action": "read", "time": NOON}, "decision": "allow"},
        {
            "name": "secrets",
            "request": {"tenant": "global", "action": "read", "data_class": "secret", "time": NOON},
            "decision": "deny",
            "rule": "no-secrets",
        },
        {
            "name": "large",
            "request": {"tenant": "global", "action": "read", "amount": 5000, "time": NOON},
            "decision": "require_approval",
            "rule": "large-sums",
        },
        {
            "name": "night",
            "request": {"tenant": "acme", "action": "read", "time": MIDNIGHT},
            "decision": "deny",
            "rule": "acme-at-night",
        },
        {
            "name": "error in a deny rule",
            "request": {"tenant": "acme", "action": "divide", "time": NOON},
            "decision": "deny",
            "rule": "fragile",
        },
        {"name": "default", "request": {"tenant": "x", "time": NOON}, "decision": "deny", "reason": "default"},
    )
)
"""What documents with `RULES` must decide."""


def document(version: str, previous: Previous | None = None, /, **changes: Any) -> bytes:
    """A constitution's exact bytes; without changes, `RULES`, and no to everything else."""
    now = datetime.now(UTC).replace(microsecond=0)
    content = {
        "schema_version": 1,
        "environment": ENVIRONMENT,
        "version": version,
        "title": "Agents of the test",
        "summary": f"What {version} says",
        "issued_at": now.isoformat(),
        "expires_at": (now + timedelta(days=90)).isoformat(),
        "previous": None if previous is None else previous.model_dump(),
        "principles": [{"id": "care", "text": "Agents act with care."}],
        "rules": RULES,
        "default_effect": "deny",
        **changes,
    }
    return json.dumps(content, indent=1).encode()


def following(result: LoadResult) -> Previous:
    """What the next document names as its previous."""
    assert result.version is not None
    assert result.checksum is not None
    return Previous(version=result.version, checksum=result.checksum)


def soon(**delta: int) -> str:
    """A time from now on, as documents write it."""
    return (datetime.now(UTC) + timedelta(**delta)).isoformat()


def content(data: bytes | None) -> Mapping[str, Any]:
    """What is in a document; nothing in none."""
    said: Mapping[str, Any] = {} if data is None else json.loads(data)
    return said
