"""The head of the audit stream: how far it reached at a time, as constitution-service signs it.

Every event carries its number, and the checksum of the event before it; so a head vouches for all of them, and whoever
deletes the newest events contradicts it.
"""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from constitution.checksum import Checksum
from constitution.environment import Identifier
from constitution.model import Model

AUDIT_HEAD_PREDICATE = "urn:somaagenthub:constitution:audit-head:v1"
"""``predicateType`` of a signed head."""


class AuditHead(Model):
    """The newest event of an environment's audit stream.

    Args:
        environment: whose stream.
        sequence: the event's number, ``metadata.sequence``.
        hash: the checksum of its RFC 8785 bytes.
        time: when it was numbered, by PostgreSQL's clock.
    """

    environment: Identifier
    sequence: Annotated[int, Field(ge=1, le=2**53 - 1)]
    hash: Checksum
    time: datetime
