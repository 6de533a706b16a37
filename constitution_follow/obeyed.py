"""What a consumer obeys: one immutable value, so that a request in flight sees one document from start to end."""

from dataclasses import dataclass
from datetime import datetime

from constitution.checksum import Checksum
from constitution.policy.lapse import Terms
from constitution.policy.rules import Policy
from constitution.release import Kind


@dataclass(frozen=True, slots=True)
class Obeyed:
    """A verified release, compiled.

    Attributes:
        generation: of the release; 0 before the first one.
        kind: None before the first release.
        policy: the compiled rules; None before the first release and after a withdraw: then everything is denied.
        terms: what the document says about its own end; None when there is none.
        loaded_at: when this process began to obey it.
    """

    generation: int
    kind: Kind | None
    version: str | None
    checksum: Checksum | None
    policy: Policy | None
    terms: Terms | None
    loaded_at: datetime


def nothing(now: datetime) -> Obeyed:
    """Return what is obeyed before generation 1: no document, so nothing is allowed."""
    return Obeyed(generation=0, kind=None, version=None, checksum=None, policy=None, terms=None, loaded_at=now)
