"""What one version of the trust policy changes, in words for the people who sign it."""

from collections.abc import Iterator, Mapping
from typing import Any

from constitution.checksum import checksum_of
from constitution.trust.trust_policy import Person, TrustPolicy


def changes(old: TrustPolicy, new: TrustPolicy) -> tuple[str, ...]:
    """Return a line for each thing that was added, removed or changed; keys by fingerprint or public key."""
    before, after = dict(_facts(old)), dict(_facts(new))
    return tuple(
        line
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
        for line in _lines(name, before, after)
    )


def _lines(name: str, before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    if name not in after:
        yield f"- {name}: {before[name]}"
    elif name not in before:
        yield f"+ {name}: {after[name]}"
    else:
        yield f"~ {name}: {before[name]} becomes {after[name]}"


def _facts(policy: TrustPolicy) -> Iterator[tuple[str, str]]:
    for name, number in policy.thresholds.model_dump(exclude_none=True).items():
        yield f"threshold {name}", str(number)
    for person in policy.people:
        yield from _of_person(policy, person)
    for kind, entries in (("service", policy.services), ("assessor", policy.assessors)):
        for one in entries:
            yield f"{kind} {one.id}", one.public_key
    for client in policy.clients:
        yield f"client {client.id}", f"{client.public_key} for {', '.join(client.scopes) or 'nothing'}"
    if policy.sigstore is not None:
        yield "Sigstore root", f"sha256:{policy.sigstore.sha256}, review by {policy.sigstore.review_by}"
    if policy.relying_party is not None:
        yield "passkeys", f"of {policy.relying_party.id} on {', '.join(policy.relying_party.origins)}"


def _of_person(policy: TrustPolicy, person: Person) -> Iterator[tuple[str, str]]:
    yield f"person {person.id}", f"{person.name}, {', '.join(person.roles)}"
    for key in person.openpgp:
        yield f"key of {person.id} {key.fingerprint}", _file(policy, key.certificate)
    for entry in person.sigstore:
        said: dict[str, Any] = entry.model_dump(exclude_none=True, exclude={"identity"})
        yield f"identity of {person.id} {entry.identity}", ", ".join(map(str, said.values()))
    for passkey in person.passkeys:
        yield f"passkey of {person.id} {passkey.fingerprint}", "as enrolled"


def _file(policy: TrustPolicy, name: str) -> str:
    """Name a file's content by the first half of its checksum, so that a certificate that was changed is seen."""
    return f"certificate {checksum_of(policy.files.get(name, b''))[:39]}"
