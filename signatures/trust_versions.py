"""Proves a step from one version of the trust policy to the next. The rules: constitution/trust/trust_version.py."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from constitution import strict_json
from constitution.environment import issues_of
from constitution.errors import InvalidRequestError, UntrustedError
from constitution.release import Envelope
from constitution.trust.trust_policy import TrustPolicy
from constitution.trust.trust_version import (
    TRUST_VERSION_PREDICATE,
    TrustVersion,
    TrustVersionPredicate,
    statement_issues,
    step_issues,
)
from signatures import dsse
from signatures.openpgp import check_certificates
from signatures.passkeys import check_passkeys
from signatures.statements import read_bound, statement

MAX_VERSION_BYTES = 8 * 1024 * 1024  # a policy of 256 KiB with its certificates, in base64
HINT = "constitution trust verify FOLDER  # shows each step, and who signed it"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one envelope is worth.

    Args:
        by_old: the person of the version before who signed; None: nobody of it.
        by_new: the same of the version itself.
        detail: what is wrong with it, else nothing.
    """

    by_old: str | None
    by_new: str | None
    detail: str = ""


def trust_version_bytes(predicate: TrustVersionPredicate) -> bytes:
    """Return the payload of a statement about a version (sign `dsse.pae` of it)."""
    return statement(TRUST_VERSION_PREDICATE, _subject(predicate), predicate)


def verify_trust_version(envelope: Envelope, trust: TrustPolicy, now: datetime) -> tuple[str, TrustVersionPredicate]:
    """Return who signed a statement about a version, and the statement.

    A key that was good when the statement says it was signed counts, also when it has expired since
    (docs/adr/0023-trust-versions.md): a chain is read for as long as its last version is in force.

    Raises:
        UntrustedError: nobody in the trust policy signed it, or it is no such statement.
    """
    predicate = read_bound(envelope, TRUST_VERSION_PREDICATE, TrustVersionPredicate, _subject)
    try:
        return dsse.verify_person(envelope, trust, now), predicate
    except UntrustedError:
        if predicate.issued_at >= now:
            raise
    return dsse.verify_person(envelope, trust, predicate.issued_at), predicate


def read_version(data: bytes, name: str) -> TrustVersion:
    """Read ``versions/N.json``.

    Raises:
        InvalidRequestError: it is none.
    """
    try:
        return TrustVersion.model_validate(strict_json.read(data, max_bytes=MAX_VERSION_BYTES))
    except strict_json.StrictJsonError as error:
        raise InvalidRequestError(f"{name} cannot be read: {error}") from error
    except ValidationError as error:
        raise InvalidRequestError(f"{name} is no version of a trust policy", issues=issues_of(error)) from error


def write_version(policy: TrustPolicy, envelopes: tuple[Envelope, ...]) -> bytes:
    """Return the bytes of ``versions/N.json``."""
    version = TrustVersion(
        trust_toml=policy.toml_text,
        files={name: base64.b64encode(data).decode() for name, data in policy.files.items()},
        signatures=envelopes,
    )
    return dsse.statement_bytes(version.model_dump(mode="json"))


def checked_policy(toml_text: str, files: Mapping[str, bytes]) -> TrustPolicy:
    """Read a trust policy and check every key in it.

    Raises:
        InvalidRequestError: with every problem.
    """
    policy = TrustPolicy.parse(toml_text, files)
    check_certificates(policy)
    check_passkeys(policy)
    return policy


def policy_of(version: TrustVersion) -> TrustPolicy:
    """Return the policy that a version file holds.

    Raises:
        InvalidRequestError: it is not valid.
        UntrustedError: a file is not in canonical base64.
    """
    files = {name: dsse.decode_base64(text, f"file {name[:80]!r}") for name, text in version.files.items()}
    return checked_policy(version.trust_toml, files)


def findings(version: TrustVersion, old: TrustPolicy, new: TrustPolicy, now: datetime) -> tuple[Finding, ...]:
    """Judge every envelope of a version; never raises for a bad one."""
    return tuple(_finding(envelope, old, new, now) for envelope in version.signatures)


def follow(old: TrustPolicy, version: TrustVersion, now: datetime) -> TrustPolicy:
    """Return the policy of a version that follows ``old`` as it must: made of the very bytes that were signed.

    Raises:
        InvalidRequestError: it is not valid.
        UntrustedError: it does not follow; every reason is listed.
    """
    new = policy_of(version)
    found = findings(version, old, new, now)
    issues = step_issues(
        old,
        new,
        by_old=frozenset(one.by_old for one in found if one.by_old is not None),
        by_new=frozenset(one.by_new for one in found if one.by_new is not None),
    )
    if issues:
        bad = [one.detail for one in found if one.detail]
        said = f"; {len(bad)} of its signatures count for nothing: {bad[0]}" if bad else ""
        message = f"version {new.version} of the trust policy does not follow version {old.version}{said}"
        raise UntrustedError(message, issues=issues, hint=HINT)
    return new


def _finding(envelope: Envelope, old: TrustPolicy, new: TrustPolicy, now: datetime) -> Finding:
    people: list[str | None] = []
    reasons = []
    for policy in (old, new):
        try:
            person, said = verify_trust_version(envelope, policy, now)
        except UntrustedError as error:
            people.append(None)
            reasons.append(error.message)
            continue
        if differs := statement_issues(said, old, new):
            return Finding(None, None, f"the statement of {person} is about another step: {'; '.join(differs)}")
        people.append(person)
    by_old, by_new = people
    return Finding(by_old, by_new, reasons[0] if by_old is None and by_new is None else "")


def _subject(predicate: TrustVersionPredicate) -> dict[str, Any]:
    return {"name": "trust.toml", "digest": {"sha256": predicate.checksum.removeprefix("sha256:")}}
