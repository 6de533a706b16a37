"""The next version of a trust policy: who must have signed it before anybody obeys it.

The model is TUF's root (specification 5.3.3 to 5.3.5): version N+1 is signed by a threshold of version N *and* by a
threshold of N+1 itself; no version is skipped. A threshold is of people: all keys of one person count once. On each
side the board signs, or the offline root (people with the role ``root``) in its place. What the policy says of the root
itself changes by the root's signatures alone: a stolen board must not take away what can replace it.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated

from pydantic import Field

from constitution.checksum import Checksum
from constitution.environment import Identifier
from constitution.errors import Issue
from constitution.model import Model
from constitution.release import Envelope
from constitution.trust.trust_policy import Role, TrustPolicy

TRUST_VERSION_PREDICATE = "urn:somaagenthub:constitution:trust-version:v1"
"""``predicateType`` of the statement about a version of the trust policy."""

MAX_SIGNATURES = 64  # envelopes read of one version; a board and a root are far fewer


class TrustVersionPredicate(Model):
    """What a person signs about a version.

    Args:
        checksum: over trust.toml and the files that it names (`TrustPolicy.checksum`).
        previous: the same of the version before, whose number is one less.
        issued_at: when it was signed; the signer's key is judged at that time, or at the present.
    """

    environment: Identifier
    version: Annotated[int, Field(ge=2)]
    checksum: Checksum
    previous: Checksum
    reason: Annotated[str, Field(min_length=1, max_length=1000)]
    issued_at: datetime


class TrustVersion(Model):
    """A version with all that is needed to judge it: ``versions/N.json`` beside trust.toml.

    Args:
        trust_toml: its text.
        files: the files that it names, as padded base64.
        signatures: envelopes of `TrustVersionPredicate`, one signer each; none of the first version, which is pinned.
    """

    trust_toml: str
    files: Mapping[str, str]
    signatures: Annotated[tuple[Envelope, ...], Field(max_length=MAX_SIGNATURES)] = ()


def statement_issues(said: TrustVersionPredicate, old: TrustPolicy, new: TrustPolicy) -> list[str]:
    """Return in what a statement is about something else than the step from ``old`` to ``new``."""
    facts = (
        ("environment", said.environment, new.environment),
        ("version", said.version, new.version),
        ("checksum", said.checksum, new.checksum),
        ("previous", said.previous, old.checksum),
    )
    return [f"{name} is {found}, not {expected}" for name, found, expected in facts if found != expected]


def step_issues(
    old: TrustPolicy, new: TrustPolicy, *, by_old: frozenset[str], by_new: frozenset[str]
) -> tuple[Issue, ...]:
    """Return why ``new`` does not follow ``old``; nothing where it does.

    Args:
        old: the version in force.
        new: the version that is to follow.
        by_old: ids of the people of ``old`` who signed exactly this step, by their keys of ``old``.
        by_new: the same of ``new``.
    """
    issues = _number_issues(old, new)
    if not _quorum(old, by_old):
        issues.append(_unsigned("not-signed-by-old", old, by_old))
    if not _quorum(new, by_new):
        issues.append(_unsigned("not-signed-by-new", new, by_new))
    if root_facts(old) != root_facts(new):
        message = "changes the root, which takes the root's own signatures: {needed} of version {version}"
        issues += [
            Issue(
                code="root-not-signed",
                path="/thresholds/root",
                message=message.format(needed=policy.thresholds.root, version=policy.version),
            )
            for policy, people in ((old, by_old), (new, by_new))
            if policy.thresholds.root is not None and not _root_quorum(policy, people)
        ]
    return tuple(issues)


def root_facts(policy: TrustPolicy) -> object:
    """Return all that the policy says of its offline root, certificates included; equal where nothing changed."""
    people = [person for person in policy.people if "root" in person.roles]
    keys = {(p.id, key.fingerprint, policy.files.get(key.certificate, b"")) for p in people for key in p.openpgp}
    return policy.thresholds.root, keys


def _number_issues(old: TrustPolicy, new: TrustPolicy) -> list[Issue]:
    issues = []
    if old.environment != new.environment:
        message = f"is of the environment {new.environment}, not {old.environment}"
        issues.append(Issue(code="other-environment", path="/environment", message=message))
    if new.version <= old.version:
        message = f"is version {new.version}, but {old.version} is in force: no version comes again"
        issues.append(Issue(code="old-version", path="/version", message=message))
    elif new.version != old.version + 1:
        message = f"is version {new.version}, but only {old.version + 1} follows {old.version}"
        issues.append(Issue(code="skipped-version", path="/version", message=message))
    return issues


def _with(policy: TrustPolicy, role: Role, people: frozenset[str]) -> int:
    return len(people.intersection(policy.with_role(role)))


def _root_quorum(policy: TrustPolicy, people: frozenset[str]) -> bool:
    needed = policy.thresholds.root
    return needed is not None and _with(policy, "root", people) >= needed


def _quorum(policy: TrustPolicy, people: frozenset[str]) -> bool:
    return _with(policy, "board", people) >= policy.thresholds.for_trust() or _root_quorum(policy, people)


def _unsigned(code: str, policy: TrustPolicy, people: frozenset[str]) -> Issue:
    needed, root = policy.thresholds.for_trust(), policy.thresholds.root
    takes = f"{needed} of its board" + (f", or {root} of its root" if root is not None else "")
    by = ", ".join(sorted(people.intersection((*policy.with_role("board"), *policy.with_role("root"))))) or "none"
    message = f"version {policy.version} takes {takes}; of these signed: {by}"
    return Issue(code=code, path="/signatures", message=message)
