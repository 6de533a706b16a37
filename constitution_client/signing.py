"""How a person signs a statement: with a key file here, keylessly, or elsewhere: by a key on a token, by a passkey.

Elsewhere takes two calls of the same verb. The first writes the statement's exact bytes and sends nothing; the second
takes the signature over that file, verifies it offline, and demands that the statement still says what would be signed
now.
"""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from constitution.checksum import checksum_of
from constitution.errors import UntrustedError
from constitution.release import Envelope
from constitution.trust.trust_policy import Person, Role, TrustPolicy
from constitution_client.files import read_bytes, write_new
from constitution_client.keyless import KeylessOptions, KeylessSigner
from constitution_client.keys import PersonKey, require_role
from constitution_client.output import result
from constitution_client.settings import UsageError, settings
from signatures import detached, dsse
from signatures.sigstore import Signatory

_ENDINGS = (".sig", ".asc", ".gpg", ".sigstore.json")
_Stated = TypeVar("_Stated")


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningOptions:
    """The command line's part: ``--key``, ``--sigstore``, ``--print-statement``, ``--signature``, ``--statement``."""

    key: Path | None
    print_statement: Path | None = None
    signature: Path | None = None
    statement: Path | None = None
    keyless: KeylessOptions | None = None

    def check(self) -> None:
        """Demand exactly one way of signing.

        Raises:
            UsageError: none, or two.
        """
        if self.print_statement is not None and self.signature is not None:
            raise UsageError("--print-statement writes what is to be signed, --signature takes it signed: not both")
        if self.statement is not None and self.signature is None:
            raise UsageError("--statement goes with --signature")
        if self.keyless is not None and (self.print_statement is not None or self.signature is not None):
            raise UsageError("--sigstore signs here: it goes neither with --print-statement nor with --signature")
        if self.key is None and self.keyless is None and self.print_statement is None and self.signature is None:
            raise UsageError(
                "nobody signs: give --key, or --sigstore",
                hint="--print-statement FILE writes the bytes to sign, where the key is on a token",
            )

    def statement_file(self) -> Path:
        """Return the file that was signed: by default the signature's name without its ending.

        Raises:
            UsageError: the name has no such ending.
        """
        if self.statement is not None:
            return self.statement
        ending = next((one for one in _ENDINGS if str(self.signature).endswith(one)), None)
        if self.signature is None or ending is None:
            raise UsageError(
                f"{self.signature} does not say which file it signs", hint="name that file with --statement FILE"
            )
        return self.signature.with_name(self.signature.name.removesuffix(ending))


@dataclass(frozen=True, slots=True)
class _SignedElsewhere:
    envelope: Envelope
    data: bytes  # its pre-authentication encoding
    file: Path


@dataclass(frozen=True, slots=True)
class _Keyless:
    signer: KeylessSigner
    signatory: Signatory
    policy: TrustPolicy


@dataclass(frozen=True, slots=True)
class Signing:
    """One person's signing of one statement.

    Args:
        person: who signs; None while a statement is written that nobody has signed, and no key says for whom.
    """

    person: Person | None
    _key: PersonKey | None
    _write: Path | None
    _signed: _SignedElsewhere | None
    _keyless: _Keyless | None = None
    _pages: tuple[str, ...] = ()  # where a passkey signs

    @classmethod
    def begin(cls, options: SigningOptions, policy: TrustPolicy, role: Role | None = None) -> "Signing":
        """Read the key, or the signature with its statement, or log in, before anything is fetched or asked.

        Args:
            options: the command line's.
            policy: of the signer; a signature is verified against it, offline.
            role: who signs must have it; None: anybody in the policy.

        Raises:
            UsageError: no way of signing, or two.
            UntrustedError: the key or signature is of nobody in the policy with the role; the key's secret part is on
                a token; the signature does not verify.
        """
        options.check()
        if options.keyless is not None:
            signer = KeylessSigner.log_in(options.keyless, settings())
            person, who = signer.person(policy)
            require_role(person, role, policy)
            return cls(person, None, None, None, _Keyless(signer, who, policy))
        if options.signature is not None:
            file = options.statement_file()
            data = read_bytes(file, what="statement")
            signature = read_bytes(options.signature, what="signature")
            envelope, person = detached.envelope_of(data, signature, policy, datetime.now(UTC))
            require_role(person, role, policy)
            return cls(person, None, None, _SignedElsewhere(envelope, data, file))
        if options.key is None:
            return cls(None, None, options.print_statement, None, _pages=_pages(policy))
        key = PersonKey.read(options.key)
        person = key.person(policy)
        require_role(person, role, policy)
        if options.print_statement is None:
            key.require_secret()
        return cls(person, key, options.print_statement, None, _pages=_pages(policy))

    @property
    def name(self) -> str:
        """Who signs, in words."""
        if self.person is None:
            return "nobody yet"
        how = f", {self._keyless.signatory.detail}" if self._keyless is not None else ""
        return f"{self.person.name} ({self.person.id}{how})"

    @property
    def begins(self) -> str:
        """The first line of what the person is shown."""
        if self.person is None:
            return "this is written down, to be signed:"
        if self._signed is not None:
            return f"{self.name} has signed, in {self._signed.file}:"
        acts = "this is written down for you to sign" if self._write else "you are about to sign"
        return f"you are {self.name}; {acts}:"

    def asks(self, what: str) -> str | None:
        """Return the question to ask before anything is signed or sent; None where neither happens."""
        if self._write is not None:
            return None
        return f"Send this {what}?" if self._signed is not None else f"Sign this {what}?"

    def stated(self, verify: Callable[[Envelope], tuple[str, _Stated]]) -> _Stated | None:
        """Return what a statement says that was signed elsewhere, or None.

        Args:
            verify: of `signatures.statements`, for this kind of statement.

        Raises:
            UntrustedError: it is of another kind.
        """
        return None if self._signed is None else verify(self._signed.envelope)[1]

    def check(self, payload: bytes, payload_type: str) -> None:
        """Demand that a statement that was signed elsewhere is the one that would be signed now.

        Raises:
            UntrustedError: it says something else; the fields are named.
        """
        if self._signed is not None and dsse.pae(payload_type, payload) != self._signed.data:
            raise _says_something_else(self._signed.data, payload)

    def envelope(self, payload: bytes, payload_type: str, json: bool | None, **facts: Any) -> Envelope | None:
        """Sign a payload, or write it down.

        Args:
            payload: a statement's canonical bytes.
            payload_type: its DSSE type.
            json: value of ``--json/--text``.
            facts: printed beside the file's name, where it is only written down.

        Returns:
            The envelope; None where the statement was written down and nothing is left to do.

        Raises:
            UntrustedError: the statement that was signed elsewhere says something else, or the key cannot sign.
            InvalidRequestError: the file to write exists.
        """
        self.check(payload, payload_type)
        if self._signed is not None:
            return self._signed.envelope
        if self._write is not None:
            data = dsse.pae(payload_type, payload)
            write_new(self._write, data)
            self._written(data, json, facts)
            return None
        if self._keyless is not None:
            return self._signed_keylessly(self._keyless, payload, payload_type)
        if self._key is None:
            raise UsageError("nobody signs: give --key, or --sigstore")
        return self._key.sign(lambda tsk, password: dsse.sign_openpgp(payload, payload_type, tsk, password))

    @staticmethod
    def _signed_keylessly(keyless: _Keyless, payload: bytes, payload_type: str) -> Envelope:
        """Sign with the certificate, and read the envelope in the way of everybody who will."""
        bundle = keyless.signer.sign(dsse.pae(payload_type, payload))
        envelope = dsse.with_signature(payload, payload_type, keyless.signatory.identity, bundle)
        if dsse.verify_person(envelope, keyless.policy, datetime.now(UTC)) != keyless.signatory.person:
            raise UntrustedError(f"the envelope is not {keyless.signatory.person}'s")
        return envelope

    def _written(self, data: bytes, json: bool | None, facts: dict[str, Any]) -> None:
        keys = [] if self.person is None else [key.fingerprint for key in self.person.openpgp]
        user = f"--local-user {self._key.fingerprint if self._key else keys[0]} " if keys else ""
        file = shlex.quote(str(self._write))
        sign = f"gpg {user}--detach-sign {file}"
        result(
            {
                **facts,
                "statement": str(self._write),
                "checksum": checksum_of(data),
                "sign": sign,
                "passkey_pages": [*self._pages],
            },
            [
                f"statement  {self._write}, {len(data)} bytes, {checksum_of(data)}",
                "nothing was signed or sent",
                f"next: {sign}  # then this command again, with --signature {file}.sig for --print-statement",
                *(f"or sign it with a passkey, on {page}" for page in self._pages),
            ],
            json,
        )


def _pages(policy: TrustPolicy) -> tuple[str, ...]:
    """Return the pages on which a passkey of the policy signs."""
    if policy.relying_party is None:
        return ()
    return tuple(f"{origin}/passkeys" for origin in policy.relying_party.origins)


def _says_something_else(signed: bytes, payload: bytes) -> UntrustedError:
    """Name the fields in which a signed statement differs from what would be signed now."""
    from constitution import strict_json

    said, wanted = (_fields(strict_json.read(data)) for data in (detached.unpack(signed)[1], payload))
    differing = sorted(name for name in {*said, *wanted} if said.get(name) != wanted.get(name))
    return UntrustedError(
        f"the signed statement is about something else: {', '.join(differing) or 'its kind'}",
        hint="write a new one with --print-statement, and have it signed",
    )


def _fields(statement: Any) -> dict[str, Any]:
    found = statement.get("predicate", statement) if isinstance(statement, dict) else None
    return found if isinstance(found, dict) else {}
