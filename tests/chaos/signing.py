"""Keys of one scratch ceremony, and what is signed with them: documents, and releases in the service's name."""

import base64
import uuid
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from constitution.checksum import checksum_of
from constitution.policy.document import parse
from constitution.release import CurrentConstitution, Envelope, Kind, ReleasePredicate
from constitution_client.ceremony import make_trust
from signatures.openpgp import sign_detached
from signatures.statements import sign_release
from signatures.tokens import ClientKey

SERVICE = "constitution-service"
MAINTAINER = "mara"
UPDATE_ID = str(uuid.uuid4())


@dataclass
class Signing:
    """The keys in ``folder``, made here by the same ceremony as production's.

    Args:
        folder: gets ``trust/`` and ``keys/``.
        environment: bound into every statement.
    """

    folder: Path
    environment: str
    _signatures: dict[bytes, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        make_trust(self.folder, self.environment)
        self._maintainer = (self.folder / "keys" / f"{MAINTAINER}.tsk").read_bytes()

    @property
    def statement_key(self) -> Path:
        """Return the private key that constitution-service signs releases with."""
        return self.folder / "keys" / f"{SERVICE}.jwk"

    def signature(self, document: bytes) -> bytes:
        """Return the maintainer's detached signature of ``document``; always the same for the same bytes."""
        if document not in self._signatures:
            self._signatures[document] = sign_detached(document, self._maintainer)
        return self._signatures[document]

    def statement(self, document: bytes, *, generation: int, previous: bytes | None, now: datetime) -> Envelope:
        """Sign the release of ``document`` in constitution-service's name."""
        return sign_release(
            ReleasePredicate(
                environment=self.environment,
                rings=("default",),
                generation=generation,
                kind=Kind.UPDATE,
                version=parse(document).version,
                checksum=checksum_of(document),
                previous=checksum_of(previous) if previous is not None else None,
                effective_at=now,
                signatures=(checksum_of(self.signature(document)),),
                update_id=UPDATE_ID,
            ),
            SERVICE,
            ClientKey.load(self.statement_key).private_key,
        )

    def answer(self, document: bytes, *, generation: int, now: datetime) -> CurrentConstitution:
        """Return what ``GET /v1/constitution`` would answer for such a release."""
        return CurrentConstitution(
            environment=self.environment,
            generation=generation,
            kind=Kind.UPDATE,
            version=parse(document).version,
            checksum=checksum_of(document),
            effective_at=now,
            document=document.decode(),
            signatures=(base64.b64encode(self.signature(document)).decode(),),
            statement=self.statement(document, generation=generation, previous=None, now=now),
        )
