"""The key ceremony: makes the keys, the certificates and the trust policy of one environment, in one new folder.

Development uses the same ceremony that production does; production runs it once per environment on a machine that
is not the worker's, hands each person and each service their own key file, and keeps only ``trust/``.

Everything is made in a private folder beside the target and renamed into place at the end, so that an interrupted
ceremony leaves nothing that could be taken for a finished one. Nothing is ever overwritten. Key files are mode 0600
in a folder of mode 0700; their bytes never leave this process otherwise.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from constitution.environment import Identifier
from constitution.errors import ConflictError, InvalidRequestError
from constitution.trust.passkey import Passkey, RelyingParty
from constitution.trust.trust_policy import Role, Scope, SigstoreIdentity
from constitution_client.files import FileRefusedError
from signatures.openpgp import generate_key
from signatures.tokens import ClientKey
from signatures.trust_files import load_trust


@dataclass(frozen=True, slots=True)
class NewPerson:
    """Somebody of the trust policy: with what they bring to sign with, or to make a key for."""

    id: str
    name: str
    roles: tuple[Role, ...]
    certificate: bytes | None = None
    fingerprint: str = ""  # of the certificate
    sigstore: tuple[SigstoreIdentity, ...] = ()
    passkeys: tuple[Passkey, ...] = ()
    both: bool = False  # a key is made for them although they can sign without

    @property
    def gets_key(self) -> bool:
        """Whether the ceremony makes an OpenPGP key for them: they bring nothing to sign with, or are to have both."""
        return self.certificate is None and (self.both or not (self.sigstore or self.passkeys))


@dataclass(frozen=True, slots=True)
class NewClient:
    """A program that calls constitution-service or the consumers, and what it may do."""

    id: str
    scopes: tuple[Scope, ...]


PEOPLE = (
    NewPerson("mara", "Mara Lindqvist", ("maintainer", "author")),
    NewPerson("alva", "Alva Berg", ("board",)),
    NewPerson("bruno", "Bruno Okafor", ("board",)),
    NewPerson("chen", "Chen Wei", ("board",)),
    NewPerson("olga", "Olga Nyman", ("operator",)),
)
SIGSTORE_ROOT = "sigstore-root.json"  # beside trust.toml
ROOT_REVIEW = timedelta(days=180)  # half a year: a pinned root hears of no key that was retired
SERVICES = ("constitution-service",)
ASSESSORS = ("assessor",)
CLIENTS = (
    NewClient(
        "worker",
        (
            "artifacts:write",
            "lease:write",
            "load:write",
            "standing:write",
            "audit:write",
            "policy:refresh",
            "probe",
        ),
    ),
    # It stores what it saw, and asks targets; it can publish nothing.
    NewClient("assessor-client", ("evidence:write", "policy:refresh", "probe")),
    # An operator can do by hand what the worker does, but cannot make evidence: that is the assessor's word.
    NewClient(
        "operator",
        (
            "artifacts:write",
            "change-requests:write",
            "lease:write",
            "load:write",
            "standing:write",
            "policy:refresh",
            "probe",
        ),
    ),
    NewClient("target", ("policy:refresh", "probe")),  # the orchestrator makes its engine refresh
    NewClient("gate", ("artifacts:write", "policy:refresh", "probe")),  # of the gate's scratch servers
)
THRESHOLDS = {"document": 1, "approval": 2, "first_release": 2, "rollback": 2, "withdraw": 2, "override": 1}


@dataclass(frozen=True, slots=True)
class Ceremony:
    """What was made.

    Args:
        directory: the folder with ``trust/`` and ``keys/``.
        trust: path of ``trust.toml``.
        fingerprints: OpenPGP fingerprint per id of a person who has a certificate.
        keys: public key (raw Ed25519, base64url) per service, assessor and client id.
    """

    directory: Path
    trust: Path
    fingerprints: dict[str, str]
    keys: dict[str, str]


def make_trust(
    directory: Path,
    environment: str,
    *,
    people: Sequence[NewPerson] = PEOPLE,
    services: Sequence[str] = SERVICES,
    assessors: Sequence[str] = ASSESSORS,
    clients: Sequence[NewClient] = CLIENTS,
    thresholds: Mapping[str, int] | None = None,
    sigstore_root: bytes | None = None,
    relying_party: RelyingParty | None = None,
) -> Ceremony:
    """Make ``directory/trust`` and ``directory/keys`` for an environment.

    Args:
        directory: made if it is missing; may hold other files, but neither ``trust`` nor ``keys``.
        environment: its name, bound into everything that is ever signed.
        people: who stands in the policy; who brings no certificate gets an OpenPGP key.
        services: who gets a key that signs release statements.
        assessors: who gets a key that signs attestations.
        clients: who gets a key that mints service tokens.
        thresholds: those that differ from ``THRESHOLDS``.
        sigstore_root: the trusted root to pin; needed as soon as somebody has a Sigstore identity.
        relying_party: whose pages may ask for a passkey; needed as soon as somebody has one.

    Returns:
        Fingerprints and public keys, for people to compare by another channel.

    Raises:
        InvalidRequestError: ``environment`` is no name, or the resulting trust policy would not load.
        ConflictError: ``trust`` or ``keys`` is there already; nothing was touched.
        FileRefusedError: the folder cannot be written.
    """
    if not is_identifier(environment):
        raise InvalidRequestError(
            f"{environment!r} is no environment's name",
            hint="lower-case letters, digits, '.', '_', '-'; e.g. development",
        )
    _refuse_existing(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        # mkdtemp makes it mode 0700: no key is ever readable by others, not even for a moment.
        scratch = Path(tempfile.mkdtemp(prefix=".ceremony-", dir=directory))
    except OSError as error:
        raise FileRefusedError(f"cannot write in {directory}: {error.strerror}") from error
    try:
        made = _fill(
            scratch,
            environment,
            people=people,
            services=services,
            assessors=assessors,
            clients=clients,
            thresholds={**THRESHOLDS, **(thresholds or {})},
            sigstore_root=sigstore_root,
            relying_party=relying_party,
        )
        _refuse_existing(directory)
        # keys first: a folder with keys and no policy is visibly unfinished, and is refused by the next ceremony.
        (scratch / "keys").rename(directory / "keys")
        (scratch / "trust").rename(directory / "trust")
    except OSError as error:
        raise FileRefusedError(f"cannot write in {directory}: {error.strerror}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return Ceremony(directory, directory / "trust" / "trust.toml", made.fingerprints, made.keys)


def is_identifier(name: str) -> bool:
    """Say whether this may name an environment, a person, a service or a client."""
    try:
        TypeAdapter(Identifier).validate_python(name)
    except ValidationError:
        return False
    return True


def _refuse_existing(directory: Path) -> None:
    for name in ("trust", "keys"):
        if os.path.lexists(directory / name):
            raise ConflictError(
                f"{directory / name} exists: keys are never overwritten",
                hint="choose another --directory; to begin anew, move the old keys away yourself",
            )


def _fill(
    root: Path,
    environment: str,
    *,
    people: Sequence[NewPerson],
    services: Sequence[str],
    assessors: Sequence[str],
    clients: Sequence[NewClient],
    thresholds: Mapping[str, int],
    sigstore_root: bytes | None,
    relying_party: RelyingParty | None,
) -> Ceremony:
    keys = root / "keys"
    keys.mkdir(mode=0o700)
    (root / "trust" / "certificates").mkdir(parents=True)
    fingerprints = {}
    for person in people:
        if person.certificate is not None:
            certificate, fingerprint = person.certificate, person.fingerprint
        elif not person.gets_key:
            continue
        else:
            secret, certificate, fingerprint = generate_key(f"{person.name} <{person.id}@{environment}.invalid>")
            _write(keys / f"{person.id}.tsk", secret, secret=True)
        _write(root / "trust" / _certificate(person), certificate)
        fingerprints[person.id] = fingerprint
    public = {}
    for identifier in (*services, *assessors, *(client.id for client in clients)):
        client_key = ClientKey.generate(identifier)
        _write(keys / f"{identifier}.jwk", client_key.to_json().encode() + b"\n", secret=True)
        public[identifier] = client_key.public_text()
    if sigstore_root is not None:
        _write(root / "trust" / SIGSTORE_ROOT, sigstore_root)
    _write(
        root / "trust" / "trust.toml",
        _trust_toml(
            environment,
            people=people,
            services=services,
            assessors=assessors,
            clients=clients,
            fingerprints=fingerprints,
            public=public,
            thresholds=thresholds,
            sigstore_root=sigstore_root,
            relying_party=relying_party,
        ),
    )
    # Read back the way every process will: a ceremony that makes an invalid policy must fail here, not at start-up.
    load_trust(root / "trust" / "trust.toml")
    return Ceremony(root, root / "trust" / "trust.toml", fingerprints, public)


def _certificate(person: NewPerson) -> str:
    return f"certificates/{person.id}.asc"


def _trust_toml(
    environment: str,
    *,
    people: Sequence[NewPerson],
    services: Sequence[str],
    assessors: Sequence[str],
    clients: Sequence[NewClient],
    fingerprints: dict[str, str],
    public: dict[str, str],
    thresholds: Mapping[str, int],
    sigstore_root: bytes | None,
    relying_party: RelyingParty | None,
) -> bytes:
    # Written by hand for its comments; every value is an identifier, a fingerprint, a key, a name or a literal above,
    # and _fill reads the result back through the real parser.
    lines = [
        "# Who may sign, approve, publish and call, and how many of them it takes (docs/trust-policy.md).",
        "# Pin this file wherever a process reads it; it is never taken from the network.",
        "schema_version = 1",
        f'environment = "{environment}"',
        "version = 1",
        *([] if relying_party is None else [relying_party_toml(relying_party)]),
        "",
        "[thresholds]",
        *(f"{name} = {number}" for name, number in thresholds.items()),
    ]
    if sigstore_root is not None:
        digest = hashlib.sha256(sigstore_root).hexdigest()
        review = (datetime.now(UTC) + ROOT_REVIEW).date().isoformat()
        lines += ["", "[sigstore]", f'trusted_root = "{SIGSTORE_ROOT}"', f'sha256 = "{digest}"']
        lines += [f"review_by = {review}  # look at the root again by then: docs/trust-policy.md"]
    for person in people:
        roles = ", ".join(f'"{role}"' for role in person.roles)
        lines += [
            "",
            "[[people]]",
            f'id = "{person.id}"',
            f"name = {_toml_text(person.name)}",
            f"roles = [{roles}]",
        ]
        if person.id in fingerprints:
            entry = f'fingerprint = "{fingerprints[person.id]}", certificate = "{_certificate(person)}"'
            lines += [f"openpgp = [{{ {entry} }}]"]
        if person.sigstore:
            entries = (
                f"{{ identity = {_toml_text(one.identity)}, issuer = {_toml_text(one.issuer)} }}"
                for one in person.sigstore
            )
            lines += [f"sigstore = [{', '.join(entries)}]"]
        if person.passkeys:
            lines += [passkeys_toml(person.passkeys)]
    for service in services:
        lines += ["", "[[services]]", f'id = "{service}"', f'public_key = "{public[service]}"']
    for assessor in assessors:
        lines += ["", "[[assessors]]", f'id = "{assessor}"', f'public_key = "{public[assessor]}"']
    for client in clients:
        scopes = ", ".join(f'"{scope}"' for scope in client.scopes)
        lines += [
            "",
            "[[clients]]",
            f'id = "{client.id}"',
            f'public_key = "{public[client.id]}"',
            f"scopes = [{scopes}]",
        ]
    return ("\n".join(lines) + "\n").encode()


def passkeys_toml(passkeys: Sequence[Passkey]) -> str:
    """Return the line of a person's passkeys."""
    entries = (f'{{ credential = "{one.credential}", public_key = "{one.public_key}" }}' for one in passkeys)
    return f"passkeys = [{', '.join(entries)}]"


def relying_party_toml(party: RelyingParty) -> str:
    """Return the line of the relying party; it stands before the first table."""
    origins = ", ".join(f'"{origin}"' for origin in party.origins)
    return f'relying_party = {{ id = "{party.id}", origins = [{origins}] }}'


def _toml_text(text: str) -> str:
    """Return a TOML basic string: a JSON one, but for DEL; nothing beyond ASCII is escaped, as TOML has no pairs."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _write(path: Path, data: bytes, *, secret: bool = False) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600 if secret else 0o644)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)
