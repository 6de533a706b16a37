"""The trust policy: who may sign, approve, publish and call, and how many of them it takes.

The operator of a process pins ``trust.toml``; nothing in it is ever taken from the network. Certificates and the
Sigstore root are files beside it. The checks here need no cryptography; the certificates' contents are checked when
the files are loaded (signatures/trust_files.py) and again at each verification (signatures/openpgp.py).
"""

import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import date
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationError

from constitution import toml
from constitution.base64url import decode_base64url
from constitution.checksum import Checksum, checksum_of
from constitution.environment import Identifier, issues_of
from constitution.errors import InvalidRequestError, Issue
from constitution.model import Model
from constitution.release import Kind
from constitution.trust.passkey import Passkey, RelyingParty

Role = Literal["maintainer", "board", "author", "operator", "root"]
Scope = Literal[
    "artifacts:write",
    "change-requests:write",
    "evidence:write",
    "lease:write",
    "load:write",
    "standing:write",
    "audit:write",
    "policy:refresh",
    "probe",
]

NonBlank = Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=r"^\S(.*\S)?$")]
Fingerprint = Annotated[str, StringConstraints(pattern=r"^([0-9A-Fa-f]{40}|[0-9A-Fa-f]{64})$", to_lower=True)]
"""A whole OpenPGP fingerprint: 40 hex digits (version 4) or 64 (version 6), in either case. Key ids collide, so none is
taken."""


class Thresholds(Model):
    """How many distinct people each act takes; each at least 1 and at most the number who can meet it."""

    document: Annotated[int, Field(ge=1)] = 1  # maintainers whose signature covers the document of an update
    document_first_release: Annotated[int, Field(ge=1)] | None = None  # maintainers; while nothing is live
    document_rollback: Annotated[int, Field(ge=1)] | None = None  # maintainers; a document that is restored
    approval: Annotated[int, Field(ge=1)] = 2  # board
    first_release: Annotated[int, Field(ge=1)] = 2  # board
    rollback: Annotated[int, Field(ge=1)] = 2  # board; later than the pre-authorisation
    withdraw: Annotated[int, Field(ge=1)] = 2  # board
    override: Annotated[int, Field(ge=1)] = 1  # board: skip, promote
    reissue: Annotated[int, Field(ge=1)] | None = None  # board; release again; null, and at the least: as approval
    unwatched: Annotated[int, Field(ge=1)] | None = None  # board; an update that nobody watches; null: as approval
    trust: Annotated[int, Field(ge=1)] | None = None  # board; the next version of the trust policy; null: as approval
    root: Annotated[int, Field(ge=1)] | None = None  # root; the same without the board; named where anybody has it

    def for_document(self, kind: Kind, *, first: bool) -> int:
        """Return how many maintainers must have signed a document.

        Args:
            kind: of the release that makes it live.
            first: nothing is live before it: its ``previous`` is null.
        """
        chosen = self.document
        if kind is Kind.ROLLBACK:
            chosen = self.document_rollback or chosen
        elif first:
            chosen = self.document_first_release or chosen
        return chosen

    def for_update(self, *, first: bool, watched: bool) -> int:
        """Return how many board members an update takes.

        Args:
            first: nothing is live before it, so there is nothing to watch it against.
            watched: its strategy has a watch.
        """
        if first:
            return self.first_release
        return self.approval if watched or self.unwatched is None else max(self.approval, self.unwatched)

    def for_reissue(self) -> int:
        """Return how many board members a reissue takes; never fewer than an update that is watched."""
        return max(self.approval, self.reissue or 1)

    def for_trust(self) -> int:
        """Return how many board members the next version of the trust policy takes."""
        return self.trust or self.approval


class OpenPgpKey(Model):
    """A certificate, by whole fingerprint; ``certificate`` is a path relative to trust.toml."""

    fingerprint: Fingerprint
    certificate: NonBlank


class SigstoreIdentity(Model):
    """A keyless identity. Every part is compared exactly; none may be empty: an empty issuer would skip it.

    Args:
        identity: an e-mail address, or the URI of a CI workflow.
        issuer: who has seen that the signer is this.
        repository: of a CI run, its source: ``https://github.com/OWNER/NAME``. A workflow that others may call has one
            identity in every repository that calls it. Null: any.
        ref: of a CI run, the branch or tag that it ran on: ``refs/heads/main``. Null: any.
    """

    identity: NonBlank
    issuer: Annotated[str, StringConstraints(pattern=r"^https?://\S+$", max_length=512)]
    repository: Annotated[str, StringConstraints(pattern=r"^https?://\S+$", max_length=512)] | None = None
    ref: Annotated[str, StringConstraints(pattern=r"^refs/\S+$", max_length=512)] | None = None


class Person(Model):
    """Somebody who signs. All keys and identities of one person count once."""

    id: Identifier
    name: NonBlank
    roles: Annotated[tuple[Role, ...], Field(min_length=1)]
    openpgp: tuple[OpenPgpKey, ...] = ()
    sigstore: tuple[SigstoreIdentity, ...] = ()
    passkeys: tuple[Passkey, ...] = ()


class SigstoreRoot(Model):
    """The pinned Sigstore trusted root.

    Args:
        trusted_root: a file beside trust.toml.
        sha256: of the file's bytes.
        review_by: the day by which somebody looks at it again (constitution/trust/root_review.py).
    """

    trusted_root: NonBlank
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9A-Fa-f]{64}$", to_lower=True)]
    review_by: date | None = None


class ServiceKey(Model):
    """A key that signs release statements; raw Ed25519, base64url."""

    id: Identifier
    public_key: NonBlank

    def raw(self) -> bytes:
        """Return the 32 bytes of the key."""
        return decode_key(self.public_key)


class AssessorKey(ServiceKey):
    """A key that signs attestations: what the gate, the sync and the watch saw."""


class ClientKeyEntry(Model):
    """A key that mints service tokens, and what those may do."""

    id: Identifier
    public_key: NonBlank
    scopes: tuple[Scope, ...] = ()

    def raw(self) -> bytes:
        """Return the 32 bytes of the key."""
        return decode_key(self.public_key)


def decode_key(text: str) -> bytes:
    """Decode a raw Ed25519 public key: 32 bytes in unpadded base64url.

    Raises:
        ValueError: anything else.
    """
    raw = decode_base64url(text)
    if len(raw) != 32:
        raise ValueError("is not 32 bytes in unpadded base64url")
    return raw


class TrustPolicy(Model):
    """``trust.toml`` with the files that it names."""

    schema_version: Literal[1]
    environment: Identifier
    version: Annotated[int, Field(ge=1)]
    thresholds: Thresholds = Thresholds()
    people: Annotated[tuple[Person, ...], Field(min_length=1)]
    sigstore: SigstoreRoot | None = None
    relying_party: RelyingParty | None = None
    services: Annotated[tuple[ServiceKey, ...], Field(min_length=1)]
    assessors: tuple[AssessorKey, ...] = ()
    clients: tuple[ClientKeyEntry, ...] = ()
    files: Mapping[str, bytes] = Field(default_factory=dict, repr=False)
    toml_text: str = Field(default="", repr=False)

    @classmethod
    def parse(cls, toml_text: str, files: Mapping[str, bytes]) -> "TrustPolicy":
        """Read a trust policy.

        Args:
            toml_text: the text of trust.toml.
            files: contents of every path of `referenced_files`.

        Raises:
            InvalidRequestError: with every problem: a threshold below 1 or above the number of people who can meet
                it, an empty identity or issuer, a short fingerprint, a missing file, the same key under two people
                or uses, another root than the pinned one.
        """
        data = toml.read(toml_text, what="trust.toml")
        try:
            policy = cls.model_validate({**data, "files": {}, "toml_text": toml_text})
        except ValidationError as error:
            raise InvalidRequestError("trust.toml is not valid", issues=issues_of(error)) from error
        named = referenced_files(toml_text)
        policy = policy.model_copy(update={"files": {name: files[name] for name in named if name in files}})
        issues = [
            Issue(code="missing-file", path=name, message="is named by trust.toml but was not found")
            for name in named
            if name not in files
        ]
        issues += _threshold_issues(policy) + _person_issues(policy) + _key_issues(policy) + _root_issues(policy)
        issues += _passkey_issues(policy) + _offline_root_issues(policy)
        if issues:
            raise InvalidRequestError("trust.toml is not valid", issues=issues)
        return policy

    @property
    def checksum(self) -> Checksum:
        """The checksum over trust.toml and every file that it names: over the very bytes that this was made of."""
        digests = {name: checksum_of(data) for name, data in self.files.items()}
        listed = {"files": digests, "trust.toml": checksum_of(self.toml_text.encode())}
        return checksum_of(json.dumps(listed, sort_keys=True, separators=(",", ":")).encode())

    def person(self, person_id: str) -> Person | None:
        """Return a person by id, or None."""
        return next((p for p in self.people if p.id == person_id), None)

    def with_role(self, role: Role) -> tuple[str, ...]:
        """Return the ids of the people who have a role."""
        return tuple(p.id for p in self.people if role in p.roles)

    def service(self, service_id: str) -> ServiceKey | None:
        """Return a service key by id, or None."""
        return next((s for s in self.services if s.id == service_id), None)

    def assessor(self, assessor_id: str) -> AssessorKey | None:
        """Return an assessor's key by id, or None."""
        return next((a for a in self.assessors if a.id == assessor_id), None)

    def client(self, client_id: str) -> ClientKeyEntry | None:
        """Return a client key by id, or None."""
        return next((c for c in self.clients if c.id == client_id), None)


def referenced_files(toml_text: str) -> tuple[str, ...]:
    """Return the relative paths that trust.toml names: certificates and the Sigstore root.

    Raises:
        InvalidRequestError: not acceptable TOML, or a path that leaves the folder of trust.toml.
    """
    data = toml.read(toml_text, what="trust.toml")
    names: list[str] = []
    people = data.get("people")
    for person in people if isinstance(people, list) else []:
        keys = person.get("openpgp") if isinstance(person, dict) else None
        entries = keys if isinstance(keys, list) else []
        names += [str(k["certificate"]) for k in entries if isinstance(k, dict) and "certificate" in k]
    root = data.get("sigstore")
    if isinstance(root, dict) and "trusted_root" in root:
        names.append(str(root["trusted_root"]))
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\0" in name:
            raise InvalidRequestError(f"trust.toml names the file {name[:80]!r} outside its own folder")
    return tuple(dict.fromkeys(names))


def _threshold_issues(policy: TrustPolicy) -> list[Issue]:
    maintainers, board = len(policy.with_role("maintainer")), len(policy.with_role("board"))
    issues = []
    for name, needed in policy.thresholds.model_dump(exclude_none=True).items():
        role, available = ("maintainer", maintainers) if name.startswith("document") else ("board", board)
        if name == "root":
            role, available = "root", len(policy.with_role("root"))
        if needed > available:
            message = f"takes {needed} people with role {role}, but {available} have it"
            issues.append(Issue(code="threshold", path=f"/thresholds/{name}", message=message))
    return issues


def _person_issues(policy: TrustPolicy) -> list[Issue]:
    issues = [
        Issue(code="no-key", path=f"/people/{person.id}", message="has neither an OpenPGP key nor a Sigstore identity")
        for person in policy.people
        if not person.openpgp and not person.sigstore
    ]
    named = (
        ("people", policy.people),
        ("services", policy.services),
        ("assessors", policy.assessors),
        ("clients", policy.clients),
    )
    for kind, entries in named:
        ids = [entry.id for entry in entries]
        issues += [
            Issue(code="duplicate-id", path=f"/{kind}", message=f"the id {twice} stands twice")
            for twice in sorted({i for i in ids if ids.count(i) > 1})
        ]
    return issues


def _key_issues(policy: TrustPolicy) -> list[Issue]:
    """No key may stand for two people, or for two uses: a client that mints tokens must not sign statements."""
    issues = []
    owners: dict[str, str] = {}

    def claim(key: str, owner: str, path: str) -> None:
        if key in owners:
            message = f"is the key of {owners[key]} too" if owners[key] != owner else "stands twice"
            issues.append(Issue(code="shared-key", path=path, message=message))
        owners.setdefault(key, owner)

    for person in policy.people:
        for key in person.openpgp:
            claim(f"openpgp {key.fingerprint}", f"person {person.id}", f"/people/{person.id}/openpgp")
        for identity in person.sigstore:
            key_name = f"sigstore {identity.identity} {identity.issuer}"
            claim(key_name, f"person {person.id}", f"/people/{person.id}/sigstore")
        for passkey in person.passkeys:
            for key_name in (f"passkey {passkey.credential}", f"cose {passkey.public_key}"):
                claim(key_name, f"person {person.id}", f"/people/{person.id}/passkeys")
    holders: list[tuple[str, ServiceKey | ClientKeyEntry]] = [
        *(("service", service) for service in policy.services),
        *(("assessor", assessor) for assessor in policy.assessors),
        *(("client", client) for client in policy.clients),
    ]
    for kind, entry in holders:
        path = f"/{kind}s/{entry.id}/public_key"
        try:
            claim(f"ed25519 {entry.raw().hex()}", f"{kind} {entry.id}", path)
        except ValueError as error:
            issues.append(Issue(code="bad-key", path=path, message=str(error)))
    return issues


def _root_issues(policy: TrustPolicy) -> list[Issue]:
    if policy.sigstore is None:
        if any(person.sigstore for person in policy.people):
            message = "somebody has a Sigstore identity, so a trusted root must be pinned"
            return [Issue(code="no-root", path="/sigstore", message=message)]
        return []
    content = policy.files.get(policy.sigstore.trusted_root)
    if content is not None and not hmac.compare_digest(hashlib.sha256(content).hexdigest(), policy.sigstore.sha256):
        return [
            Issue(code="root-digest", path="/sigstore/sha256", message="is not the digest of the trusted root file")
        ]
    return []


def _passkey_issues(policy: TrustPolicy) -> list[Issue]:
    """Passkeys need a relying party, and sign statements only: whoever has nothing else can sign no document."""
    issues = []
    if policy.relying_party is None and any(person.passkeys for person in policy.people):
        message = "somebody has a passkey, so the relying party must be pinned"
        issues.append(Issue(code="no-relying-party", path="/relying_party", message=message))
    issues += [
        Issue(
            code="no-key",
            path=f"/people/{person.id}",
            message="is a maintainer with passkeys only: those sign statements, no documents",
        )
        for person in policy.people
        if "maintainer" in person.roles and person.passkeys and not person.openpgp and not person.sigstore
    ]
    return issues


def _offline_root_issues(policy: TrustPolicy) -> list[Issue]:
    """The root's keys lie in a safe: whoever holds one does nothing else with it."""
    issues = [
        Issue(
            code="root-not-offline",
            path=f"/people/{person.id}",
            message="has the role root, so no other role, and OpenPGP keys alone: a key that is kept offline",
        )
        for person in policy.people
        if "root" in person.roles and (person.roles != ("root",) or person.sigstore or person.passkeys)
    ]
    if policy.with_role("root") and policy.thresholds.root is None:
        message = "somebody has the role root, so [thresholds] must say how many of them it takes"
        issues.append(Issue(code="threshold", path="/thresholds/root", message=message))
    return issues
