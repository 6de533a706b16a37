"""A trust policy with real keys for unit tests: made once per test run, by the product's own functions."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from constitution.trust.trust_policy import TrustPolicy
from signatures.openpgp import generate_key
from signatures.tokens import ClientKey

DATA = Path(__file__).resolve().parents[1] / "data"
# Ahead of the clock: keys and signatures are made while the tests run, which may be long after this line.
NOW = datetime.now(UTC) + timedelta(hours=1)
PEOPLE = {
    "mara": ["maintainer", "author"],
    "marc": ["maintainer"],
    "alva": ["board"],
    "bruno": ["board"],
    "chen": ["board"],
    "olga": ["operator"],
}


@dataclass(frozen=True)
class Keyring:
    """Everybody's keys and the policy that pins them."""

    trust: TrustPolicy
    toml: str
    files: dict[str, bytes]
    tsk: dict[str, bytes]
    service: ClientKey
    worker: ClientKey
    assessor: ClientKey


def toml_of(
    people: Sequence[tuple[str, Sequence[str], Sequence[tuple[str, str]]]],
    service: ClientKey,
    worker: ClientKey,
    extra: str = "",
    assessor: ClientKey | None = None,
) -> str:
    lines = ["schema_version = 1", 'environment = "development"', "version = 1", extra]
    for person, roles, keys in people:
        entries = ", ".join(f'{{ fingerprint = "{f}", certificate = "{c}" }}' for f, c in keys)
        lines += ["[[people]]", f'id = "{person}"', f'name = "{person.title()}"', f"roles = {list(roles)!r}"]
        lines += [f"openpgp = [{entries}]"]
    lines += ["[[services]]", f'id = "{service.id}"', f'public_key = "{service.public_text()}"']
    if assessor is not None:
        lines += ["[[assessors]]", f'id = "{assessor.id}"', f'public_key = "{assessor.public_text()}"']
    lines += ["[[clients]]", 'id = "worker"', f'public_key = "{worker.public_text()}"']
    lines += ['scopes = ["load:write", "lease:write"]']
    return "\n".join(lines)


@cache
def keyring() -> Keyring:
    files: dict[str, bytes] = {}
    tsk: dict[str, bytes] = {}
    people = []
    for person, roles in PEOPLE.items():
        names = [person, f"{person}-second"] if person == "mara" else [person]  # Mara has two keys
        keys = []
        for name in names:
            tsk[name], certificate, fingerprint = generate_key(f"{name} <{name}@example.org>")
            files[f"certificates/{name}.asc"] = certificate
            keys.append((fingerprint, f"certificates/{name}.asc"))
        people.append((person, roles, keys))
    service, worker = ClientKey.generate("constitution-service"), ClientKey.generate("worker")
    assessor = ClientKey.generate("assessor")
    toml = toml_of(people, service, worker, assessor=assessor)
    return Keyring(TrustPolicy.parse(toml, files), toml, files, tsk, service, worker, assessor)


def document(**changes: Any) -> dict[str, Any]:
    """Return a valid constitution as a dict; ``changes`` replace fields, None removes one."""
    content: dict[str, Any] = {
        "schema_version": 1,
        "environment": "development",
        "version": "1.0.0",
        "title": "A constitution",
        "summary": "For tests.",
        "issued_at": (NOW - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "expires_at": (NOW + timedelta(days=365)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "previous": None,
        "principles": [{"id": "p", "text": "Be careful."}],
        "rules": [rule("deny-it", "deny", 'tool == "x"')],
        "default_effect": "deny",
    }
    content.update(changes)
    return content


def rule(identity: str, effect: str, when: str, severity: str = "medium") -> dict[str, str]:
    return {
        "id": identity,
        "principle": "p",
        "effect": effect,
        "when": when,
        "severity": severity,
        "message": f"This is what {identity} says.",
    }
