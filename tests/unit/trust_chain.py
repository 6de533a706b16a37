"""Versions of the keyring's trust policy, signed with its keys."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pysequoia

from constitution.release import Envelope
from constitution.trust.trust_policy import TrustPolicy
from constitution.trust.trust_version import TrustVersion, TrustVersionPredicate
from signatures import dsse
from signatures.statements import IN_TOTO
from signatures.trust_versions import checked_policy, read_version, trust_version_bytes, write_version
from tests.unit.keyring import keyring


def first(extra: str = "", files: dict[str, bytes] | None = None) -> TrustPolicy:
    """Return version 1, with more in its TOML."""
    ring = keyring()
    return checked_policy(ring.toml + extra, {**ring.files, **(files or {})})


def next_of(old: TrustPolicy, *edits: tuple[str, str], version: int | None = None, files: Any = None) -> TrustPolicy:
    """Return an edited copy with the next number."""
    text = old.toml_text.replace(f"\nversion = {old.version}\n", f"\nversion = {version or old.version + 1}\n")
    for before, after in edits:
        assert before in text
        text = text.replace(before, after, 1)
    return checked_policy(text, {**old.files, **(files or {})})


def statement_of(old: TrustPolicy, new: TrustPolicy, **changes: Any) -> bytes:
    """Return what is signed about a step; ``changes`` replace what it says."""
    said: dict[str, Any] = {
        "environment": new.environment,
        "version": new.version,
        "checksum": new.checksum,
        "previous": old.checksum,
        "reason": "a test",
        "issued_at": datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=1),
        **changes,
    }
    return trust_version_bytes(TrustVersionPredicate.model_validate(said))


def signed(old: TrustPolicy, new: TrustPolicy, secret: bytes, **changes: Any) -> Envelope:
    """Return one signature over a step."""
    return dsse.sign_openpgp(statement_of(old, new, **changes), IN_TOTO, secret)


def version(old: TrustPolicy, new: TrustPolicy, *people: str, envelopes: Sequence[Envelope] = ()) -> TrustVersion:
    """Return the file's content, signed by people of the keyring and by more envelopes."""
    made = [signed(old, new, keyring().tsk[person]) for person in people]
    return read_version(write_version(new, (*made, *envelopes)), "a test's version")


def person(name: str, role: str, seconds: int = 10**8) -> tuple[bytes, str, dict[str, bytes]]:
    """Return somebody new, whose key is good for so long: secret key, entry of trust.toml, files."""
    key = pysequoia.Tsk.generate(user_id=f"{name} <{name}@example.org>", validity_seconds=seconds)
    found = key.extract_certificate()
    secret, certificate, fingerprint = bytes(key), str(found).encode(), found.fingerprint
    file = f"certificates/{name}.asc"
    entry = f'\n[[people]]\nid = "{name}"\nname = "{name.title()}"\nroles = ["{role}"]\n'
    entry += f'openpgp = [{{ fingerprint = "{fingerprint}", certificate = "{file}" }}]\n'
    return secret, entry, {file: certificate}


def write_folder(folder: Path, policy: TrustPolicy) -> Path:
    """Write trust.toml and its files; return trust.toml."""
    for name, data in {"trust.toml": policy.toml_text.encode(), **policy.files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder / "trust.toml"
