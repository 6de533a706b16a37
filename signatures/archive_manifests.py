"""Manifests of archive folders, signed by the client that writes the archive, with its token key."""

from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from constitution.archive_manifest import MANIFEST_PREDICATE, ManifestPredicate
from constitution.checksum import checksum_of
from constitution.errors import UntrustedError
from constitution.release import Envelope
from constitution.trust.trust_policy import Scope, TrustPolicy
from constitution.untrusted import read_message
from signatures import dsse
from signatures.statements import IN_TOTO, read_bound, statement

WRITER_SCOPE: Scope = "standing:write"
"""Who records what became of a release archives it."""


def sign_manifest(environment: str, folder: str, manifest: bytes, keyid: str, key: Ed25519PrivateKey) -> bytes:
    """Return ``manifest.dsse.json``: the same manifest gives the same bytes.

    Args:
        environment: whose archive.
        folder: its name, without those above it.
        manifest: the bytes of ``manifest.json``.
        keyid: the client's id in the trust policy.
        key: the client's.
    """
    said = ManifestPredicate(environment=environment, folder=folder, manifest=checksum_of(manifest))
    envelope = dsse.sign_ed25519(statement(MANIFEST_PREDICATE, _subject(said), said), IN_TOTO, keyid, key)
    return dsse.statement_bytes(envelope.model_dump(mode="json"))


def verify_manifest(data: bytes, folder: str, manifest: bytes, trust: TrustPolicy) -> str:
    """Return the id of the client that signed a folder's manifest.

    Raises:
        UntrustedError: not signed by a client that writes the archive, not canonical, or of another folder, environment
            or manifest.
    """
    try:
        envelope = read_message(Envelope, data)
    except ValueError as error:
        raise UntrustedError("is no DSSE envelope") from error
    if dsse.statement_bytes(envelope.model_dump(mode="json")) != data:
        raise UntrustedError("is not in canonical form (RFC 8785)")
    client = dsse.verify_client(envelope, trust, WRITER_SCOPE)
    said = read_bound(envelope, MANIFEST_PREDICATE, ManifestPredicate, _subject)
    if said.environment != trust.environment:
        raise UntrustedError(f"is of {said.environment}, not of {trust.environment}")
    if said.folder != folder:
        raise UntrustedError(f"is of the folder {said.folder}")
    if said.manifest != checksum_of(manifest):
        raise UntrustedError("is of another manifest.json")
    return client


def _subject(said: ManifestPredicate) -> dict[str, Any]:
    return {"name": said.folder, "digest": {"sha256": said.manifest.removeprefix("sha256:")}}
