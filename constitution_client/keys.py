"""A person's signing key: read once, never shown, unlocked by prompt or environment, never by argument."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer

from constitution.errors import UntrustedError
from constitution_client.files import read_bytes
from constitution_client.prompting import interruptible

if TYPE_CHECKING:
    from constitution.trust.trust_policy import Person, Role, TrustPolicy

PASSPHRASE_VARIABLE = "CONSTITUTION_KEY_PASSPHRASE"  # noqa: S105 - the variable's name, not a secret

_Signed = TypeVar("_Signed")


@dataclass(frozen=True, slots=True)
class PersonKey:
    """An OpenPGP secret key file of one person.

    Args:
        path: where it came from, for messages.
        secret: the file's bytes; kept out of ``repr``.
        fingerprint: lower-case hex of its primary key.
    """

    path: Path
    secret: bytes = field(repr=False)
    fingerprint: str

    @classmethod
    def read(cls, path: Path) -> "PersonKey":
        """Read a key file.

        Raises:
            UntrustedError: others may read the file, or it holds no OpenPGP secret key.
            FileRefusedError: it cannot be read.
        """
        from signatures.openpgp import fingerprint_of_key

        data = read_bytes(path, what="secret key", secret=True)
        return cls(path, data, fingerprint_of_key(data))

    def person(self, trust: "TrustPolicy") -> "Person":
        """Return whose key this is, by the trust policy.

        Raises:
            UntrustedError: the trust policy does not know it.
        """
        for person in trust.people:
            if any(key.fingerprint.lower() == self.fingerprint for key in person.openpgp):
                return person
        raise UntrustedError(
            f"the key {self.fingerprint} in {self.path} belongs to nobody in the trust policy of {trust.environment}",
            hint="name the key of a person listed in trust.toml",
        )

    def board_member(self, trust: "TrustPolicy") -> "Person":
        """Return whose key this is, if that person sits on the board.

        Raises:
            UntrustedError: the trust policy does not know the key, or not as a board member's.
        """
        return self.with_role("board", trust)

    def with_role(self, role: "Role", trust: "TrustPolicy") -> "Person":
        """Return whose key this is, if that person has the role.

        Raises:
            UntrustedError: the trust policy does not know the key, or not as one of somebody with the role.
        """
        person = self.person(trust)
        require_role(person, role, trust)
        return person

    def require_secret(self) -> None:
        """Demand that the file can sign, perhaps after a passphrase.

        Raises:
            UntrustedError: it cannot: its secret part is on a token, for instance.
        """
        from signatures.openpgp import is_locked

        is_locked(self.secret)

    def sign(self, action: Callable[[bytes, str | None], _Signed]) -> _Signed:
        """Sign by ``action(secret key, passphrase)``, asking for the passphrase only if the key is locked.

        Raises:
            UntrustedError: the passphrase is wrong, or there is nobody to ask.
        """
        from signatures.openpgp import is_locked

        if not is_locked(self.secret):
            return action(self.secret, None)
        try:
            return action(self.secret, self._passphrase())
        except UntrustedError as error:
            if error.hint:
                raise
            raise UntrustedError(error.message, hint="try the passphrase again; nothing was signed") from error

    def _passphrase(self) -> str:
        given = os.environ.get(PASSPHRASE_VARIABLE)
        if given:
            return given
        if not sys.stdin.isatty():
            raise UntrustedError(
                f"the key {self.path} is locked by a passphrase",
                hint=f"run this on a terminal, or set {PASSPHRASE_VARIABLE}",
            )
        return interruptible(lambda: str(typer.prompt(f"Passphrase of {self.path.name}", hide_input=True, err=True)))


def require_role(person: "Person", role: "Role | None", trust: "TrustPolicy") -> None:
    """Demand that a person has a role; None: any.

    Raises:
        UntrustedError: they have it not.
    """
    if role is None or role in person.roles:
        return
    what = "member of the board" if role == "board" else role
    raise UntrustedError(
        f"{person.name} ({person.id}) is no {what} of {trust.environment}",
        hint="ask one of: " + (", ".join(trust.with_role(role)) or f"nobody has the role {role} yet"),
    )
