"""The checksum: one string that names a document's exact bytes everywhere.

It names the artifact in the store, the row in Postgres, the value in Redis, the event on Kafka and the policy
hash that consumers report. Form: ``sha256:`` and 64 lower-case hex digits (docs/glossary.md).
"""

import hashlib
from typing import Annotated

from pydantic import StringConstraints

Checksum = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
"""``sha256:`` + 64 hex digits over exact bytes."""


def checksum_of(data: bytes) -> str:
    """Return the checksum of exact bytes, in the form ``sha256:<64 hex digits>``."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
