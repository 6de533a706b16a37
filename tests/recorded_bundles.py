"""The signatures that `tests/record_bundles.py` recorded, and a trust policy that knows their signers."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from constitution.release import Envelope
from constitution.trust.trust_policy import Person, Role, SigstoreIdentity, SigstoreRoot, TrustPolicy
from deploy.embedded.development import email_of
from tests.unit.keyring import keyring

RECORDED: Final = Path(__file__).parent / "data" / "sigstore" / "private"
REPOSITORY: Final = "acme/agents"
WORKFLOW: Final = ".ci/workflows/release.yml"
MAIN: Final = "refs/heads/main"
# Name of a bundle -> repository and ref of the CI job that made it.
CI: Final = {
    "ci": (REPOSITORY, MAIN),
    "ci-branch": (REPOSITORY, "refs/heads/feature"),
    "ci-fork": ("mallory/agents", MAIN),
}


@dataclass(frozen=True)
class Recorded:
    """What was recorded."""

    folder: Path = RECORDED

    @cached_property
    def said(self) -> dict[str, str]:
        """Issuer, addresses and time of the recording."""
        found: dict[str, str] = json.loads((self.folder / "recorded.json").read_bytes())
        return found

    @property
    def at(self) -> datetime:
        """When."""
        return datetime.fromisoformat(self.said["recorded_at"])

    @cached_property
    def document(self) -> bytes:
        """The signed document."""
        return (self.folder / "document.json").read_bytes()

    def bundle(self, who: str, of: str = "document.json") -> bytes:
        """Somebody's bundle of a file."""
        return (self.folder / f"{of}.{who}.sigstore.json").read_bytes()

    def envelope(self, name: str) -> Envelope:
        """A signed statement."""
        return Envelope.model_validate_json((self.folder / f"{name}.json").read_bytes())

    @cached_property
    def root(self) -> bytes:
        """The trusted root."""
        return (self.folder / "trusted_root.json").read_bytes()

    def identity(self, person: str, **changes: Any) -> SigstoreIdentity:
        """The identity by which somebody logged in."""
        return SigstoreIdentity(**{"identity": email_of(person), "issuer": self.said["issuer"], **changes})

    def job(self, **changes: Any) -> SigstoreIdentity:
        """The identity of the CI job."""
        known = {
            "identity": f"{self.said['workflow']}@{MAIN}",
            "issuer": f"{self.said['issuer']}/ci",
            "repository": self.said["repository"],
            "ref": MAIN,
        }
        return SigstoreIdentity(**{**known, **changes})

    def trust(self, *people: Person, root: bytes | None = None) -> TrustPolicy:
        """A trust policy of these people, by default of those who signed."""
        known = people or (
            self.person("mara", "maintainer", "author"),
            self.person("alva", "board"),
            self.person("bruno", "board"),
            Person(id="ci", name="the CI job", roles=("maintainer",), sigstore=(self.job(),)),
        )
        pinned = SigstoreRoot(trusted_root="root.json", sha256="0" * 64)  # digests are compared where files are loaded
        update = {"people": tuple(known), "sigstore": pinned, "files": {"root.json": root or self.root}}
        return keyring().trust.model_copy(update=update)

    def person(self, person: str, *roles: Role, sigstore: Sequence[SigstoreIdentity] | None = None) -> Person:
        """Somebody who signs keylessly."""
        entries = (self.identity(person),) if sigstore is None else tuple(sigstore)
        return Person(id=person, name=person.title(), roles=roles, sigstore=entries)

    def now(self) -> datetime:
        """The time of the test: long after a certificate of ten minutes has ended."""
        return datetime.now(UTC)
