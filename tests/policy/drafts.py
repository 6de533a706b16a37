"""The constitutions under test: the one that the gate was given, or, in a normal test run, the shipped templates.

``CONSTITUTION_DRAFT`` is the path of the draft's exact bytes, ``CONSTITUTION_PREVIOUS`` of those it would replace.
"""

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from pathlib import Path

from constitution.checksum import Checksum, checksum_of
from constitution.policy.document import Constitution, Rule, parse
from constitution.policy.evaluation import Decision
from constitution.policy.rules import Policy
from constitution.release import Previous


@dataclass(frozen=True)
class Draft:
    """One constitution under test, with the one that it would replace."""

    name: str
    data: bytes
    document: Constitution
    policy: Policy
    previous: bytes | None

    @property
    def checksum(self) -> Checksum:
        """Return the checksum of the exact bytes."""
        return checksum_of(self.data)

    @property
    def rules(self) -> frozenset[str]:
        """Return the ids of its rules."""
        return frozenset(rule.id for rule in self.document.rules)

    @property
    def effects(self) -> frozenset[Decision]:
        """Return every decision it can make."""
        return frozenset({rule.effect for rule in self.document.rules} | {self.document.default_effect})

    def alone(self, rule: Rule) -> Policy:
        """Return a policy of this one rule: what stands before it does not hide it."""
        return Policy.compile(self.document.model_copy(update={"rules": (rule,)}))


def _read(name: str, data: bytes, previous: bytes | None) -> Draft:
    document = parse(data)
    return Draft(name, data, document, Policy.compile(document), previous)


@cache
def under_test() -> tuple[Draft, ...]:
    """Return the gate's draft, or every shipped template filled in for an environment called ``gate``.

    Raises:
        InvalidDocumentError: the draft is no constitution.
    """
    path = os.environ.get("CONSTITUTION_DRAFT")
    if path:
        before = os.environ.get("CONSTITUTION_PREVIOUS")
        previous = Path(before).read_bytes() if before else None
        return (_read("draft", Path(path).read_bytes(), previous),)
    from constitution.templates import TEMPLATES

    return tuple(_shipped(name) for name in TEMPLATES)


def _shipped(name: str) -> Draft:
    """Return a template as 1.1.0, which replaces itself as 1.0.0: a normal test run has a previous document, too."""
    from constitution.policy.draft import fill

    now = datetime.now(UTC)
    make = partial(fill, name, environment="gate", issued_at=now, expires_at=now + timedelta(days=365))
    first = make(version="1.0.0", previous=None)
    before = Previous(version="1.0.0", checksum=checksum_of(first))
    return _read(name, make(version="1.1.0", previous=before), first)
