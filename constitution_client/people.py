"""The people and thresholds of a key ceremony as they are typed, ``ID=CERTIFICATE`` and ``NAME=NUMBER``.

A person who brings a certificate keeps their secret key: the ceremony never sees it. One who brings none gets a key
made here, which in every environment but development must be asked for.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from constitution.environment import Identifier, issues_of
from constitution.trust.passkey import Passkey, RelyingParty
from constitution.trust.trust_policy import Role, SigstoreIdentity, Thresholds
from constitution_client.ceremony import PEOPLE, NewPerson, is_identifier
from constitution_client.files import read_bytes
from constitution_client.settings import UsageError

DEVELOPMENT = "development"
GUIDE = "docs/trust-policy.md"


def named_people(
    *,
    maintainers: Sequence[str],
    authors: Sequence[str],
    board: Sequence[str],
    operators: Sequence[str],
    sigstore: Sequence[str] = (),
    passkeys: Mapping[str, Sequence[Passkey]] | None = None,
    generate: bool,
    environment: str,
) -> tuple[NewPerson, ...]:
    """Read the people of a ceremony.

    Args:
        maintainers: ``ID=CERTIFICATE`` or ``ID`` of each who signs documents, or several with commas between; these
            are the authors, too, if none is named.
        authors: of each who signs change requests.
        board: of each who approves.
        operators: of each who steers runs; these are the board, too, if none is named.
        sigstore: ``ID=IDENTITY,ISSUER`` of people named before who sign keylessly; several per person count as one.
        passkeys: of people named before (`enrolled`).
        generate: keys may be made for those who bring no certificate.
        environment: its name; only development has example people.

    Returns:
        In the order in which they were first named; a person with several roles once.

    Raises:
        UsageError: nobody is named, an entry is not of the form, two files for one person, a Sigstore identity or
            passkey of nobody who is named, or somebody with neither where no key may be made.
        ConstitutionError: a certificate cannot be read, holds a secret key, or cannot sign.
    """
    may_make = generate or environment == DEVELOPMENT
    if not (maintainers or authors or board or operators):
        if may_make:
            return PEOPLE
        raise UsageError(
            f"nobody is named for {environment}: only {DEVELOPMENT} has example people",
            hint=f"{_example(environment)}  # {GUIDE} says who is needed, and how to make the certificates",
        )
    given: list[tuple[Role, Sequence[str]]] = [
        ("maintainer", maintainers),
        ("author", authors or maintainers),
        ("board", board),
        ("operator", operators or board),
    ]
    roles: dict[str, list[Role]] = {}
    files: dict[str, str] = {}
    for role, listed in given:
        for entry in (one for entries in listed for one in entries.split(",")):
            person, _, file = entry.partition("=")
            _check_id(person, entry)
            if file and files.setdefault(person, file) != file:
                raise UsageError(
                    f"{person} is named with two certificates, {files[person]} and {file}",
                    hint=f"name one here, and add the other to trust.toml ({GUIDE})",
                )
            if role not in (held := roles.setdefault(person, [])):
                held.append(role)
    identities: dict[str, list[SigstoreIdentity]] = {}
    for entry in sigstore:
        person, _, named = entry.partition("=")
        _check_id(person, entry)
        _require_role("--sigstore", person, roles, "maintainer")
        identities.setdefault(person, []).append(_identity(person, named))
    keys = passkeys or {}
    for person in keys:
        _require_role("--passkey", person, roles, "board")
    without = [person for person in roles if person not in {*files, *identities, *keys}]
    if without and not may_make:
        raise UsageError(
            f"no certificate is given for {', '.join(without)}",
            hint="name each as ID=CERTIFICATE, or by --sigstore or --passkey; "
            f"or add --generate to have their secret keys made here ({GUIDE})",
        )
    return tuple(
        _person(
            person,
            tuple(held),
            files.get(person),
            sigstore=tuple(identities.get(person, ())),
            passkeys=tuple(keys.get(person, ())),
        )
        for person, held in roles.items()
    )


def chosen_thresholds(entries: Sequence[str]) -> dict[str, int]:
    """Read ``NAME=NUMBER`` entries.

    Raises:
        UsageError: no such threshold, or no number of at least 1.
    """
    chosen: dict[str, int] = {}
    for entry in entries:
        name, _, number = entry.partition("=")
        if name not in Thresholds.model_fields or re.fullmatch(r"[1-9][0-9]{0,3}", number) is None:
            raise UsageError(
                f"--threshold {entry!r} is not NAME=NUMBER",
                hint="names: " + ", ".join(Thresholds.model_fields) + "; e.g. --threshold approval=3",
            )
        chosen[name] = int(number)
    return chosen


def enrolled(entries: Sequence[str], relying_party: str | None) -> tuple[dict[str, list[Passkey]], RelyingParty | None]:
    """Read ``ID=FILE`` entries of new passkeys, and the relying party with the pages on which they were made.

    Without an entry, the pages are those of the domain name itself, over TLS: there the first passkey can be made.

    Raises:
        UsageError: an entry is not of the form, or there is no relying party to enrol for.
        ConstitutionError: a file is no enrolment for this relying party.
    """
    if relying_party is None:
        if not entries:
            return {}, None
        raise UsageError(
            "--passkey needs --relying-party: a passkey counts for one domain name",
            hint="e.g. --relying-party constitution.example.org --passkey alva=alva.passkey.json",
        )
    from signatures.passkeys import read_enrolment

    found: dict[str, list[Passkey]] = {}
    origins: dict[str, None] = {}
    for entry in entries:
        person, _, file = entry.partition("=")
        _check_id(person, entry)
        enrolment = read_enrolment(read_bytes(Path(file), what=f"enrolment of {person},"), relying_party)
        found.setdefault(person, []).append(enrolment.passkey)
        origins.update(dict.fromkeys(enrolment.relying_party.origins))
    try:
        return found, RelyingParty(id=relying_party, origins=tuple(origins) or (f"https://{relying_party}",))
    except ValidationError as error:
        raise UsageError(f"--relying-party {relying_party!r} is no domain name", issues=issues_of(error)) from error


def _require_role(option: str, person: str, roles: Mapping[str, object], role: Role) -> None:
    if person not in roles:
        raise UsageError(
            f"{option} names {person}, who has no role", hint=f"name them in a role as well: --{role} {person}"
        )


def _check_id(person: str, entry: str) -> None:
    if not is_identifier(person):
        raise UsageError(
            f"{entry!r} is not ID=CERTIFICATE",
            hint="an id is of lower-case letters, digits, '.', '_', '-'; e.g. --board alva=alva.asc",
        )


def _identity(person: str, named: str) -> SigstoreIdentity:
    identity, _, issuer = named.rpartition(",")
    try:
        return SigstoreIdentity(identity=identity, issuer=issuer)
    except ValidationError as error:
        raise UsageError(
            f"the Sigstore identity of {person} is none",
            issues=issues_of(error),
            hint=f"e.g. --sigstore {person}={person}@example.org,https://accounts.example.org",
        ) from error


def _person(
    person: Identifier,
    roles: tuple[Role, ...],
    file: str | None,
    *,
    sigstore: tuple[SigstoreIdentity, ...],
    passkeys: tuple[Passkey, ...],
) -> NewPerson:
    if file is None:
        name = next((one.name for one in PEOPLE if one.id == person), person)
        return NewPerson(person, name, roles, sigstore=sigstore, passkeys=passkeys)
    from signatures.openpgp import certificate_of

    data = read_bytes(Path(file), what=f"certificate of {person},")
    fingerprint, name = certificate_of(data, what=f"the certificate of {person}, {file},")
    return NewPerson(
        person, name or person, roles, certificate=data, fingerprint=fingerprint, sigstore=sigstore, passkeys=passkeys
    )


def _example(environment: str) -> str:
    return (
        f"constitution init --directory {environment} --environment {environment} "
        "--maintainer mara=mara.asc --board alva=alva.asc --board bruno=bruno.asc"
    )
