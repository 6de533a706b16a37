"""The people and thresholds of a key ceremony as they are typed, ``ID=CERTIFICATE`` and ``NAME=NUMBER``.

A person who brings a certificate keeps their secret key: the ceremony never sees it. One who brings none gets a key
made here, which in every environment but development must be asked for.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from constitution.environment import Identifier
from constitution.trust.trust_policy import Role, Thresholds
from constitution_client.ceremony import PEOPLE, NewPerson, is_identifier
from constitution_client.files import read_bytes
from constitution_client.settings import UsageError

DEVELOPMENT = "development"
GUIDE = "docs/trust-policy.md"


def named_people(
    *, maintainers: Sequence[str], authors: Sequence[str], board: Sequence[str], generate: bool, environment: str
) -> tuple[NewPerson, ...]:
    """Read the people of a ceremony.

    Args:
        maintainers: ``ID=CERTIFICATE`` or ``ID`` of each who signs documents; these are the authors, too, if none is
            named.
        authors: of each who signs change requests.
        board: of each who approves.
        generate: keys may be made for those who bring no certificate.
        environment: its name; only development has example people.

    Returns:
        In the order in which they were first named; a person with several roles once.

    Raises:
        UsageError: nobody is named, an entry is not of the form, two files for one person, or somebody without a
            certificate where no key may be made.
        ConstitutionError: a certificate cannot be read, holds a secret key, or cannot sign.
    """
    may_make = generate or environment == DEVELOPMENT
    if not (maintainers or authors or board):
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
    ]
    roles: dict[str, list[Role]] = {}
    files: dict[str, str] = {}
    for role, entries in given:
        for entry in entries:
            person, _, file = entry.partition("=")
            _check_id(person, entry)
            if file and files.setdefault(person, file) != file:
                raise UsageError(
                    f"{person} is named with two certificates, {files[person]} and {file}",
                    hint=f"name one here, and add the other to trust.toml ({GUIDE})",
                )
            if role not in (held := roles.setdefault(person, [])):
                held.append(role)
    without = [person for person in roles if person not in files]
    if without and not may_make:
        raise UsageError(
            f"no certificate is given for {', '.join(without)}",
            hint=f"name each as ID=CERTIFICATE; or add --generate to have their secret keys made here ({GUIDE})",
        )
    return tuple(_person(person, tuple(held), files.get(person)) for person, held in roles.items())


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


def _check_id(person: str, entry: str) -> None:
    if not is_identifier(person):
        raise UsageError(
            f"{entry!r} is not ID=CERTIFICATE",
            hint="an id is of lower-case letters, digits, '.', '_', '-'; e.g. --board alva=alva.asc",
        )


def _person(person: Identifier, roles: tuple[Role, ...], file: str | None) -> NewPerson:
    if file is None:
        return NewPerson(person, next((one.name for one in PEOPLE if one.id == person), person), roles)
    from signatures.openpgp import certificate_of

    data = read_bytes(Path(file), what=f"certificate of {person},")
    fingerprint, name = certificate_of(data, what=f"the certificate of {person}, {file},")
    return NewPerson(person, name or person, roles, certificate=data, fingerprint=fingerprint)


def _example(environment: str) -> str:
    return (
        f"constitution init --directory {environment} --environment {environment} "
        "--maintainer mara=mara.asc --board alva=alva.asc --board bruno=bruno.asc"
    )
