"""Authorization codes of the login: each is good once, for a minute, for who proves to have asked for it (RFC 7636)."""

import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

CODE_SECONDS = 60  # RFC 6749, 4.1.2: ten minutes at most
MAX_CODES = 1000


class CodeRefusedError(Exception):
    """No such code, or not for this one."""


@dataclass(frozen=True, slots=True)
class _Granted:
    person: str
    redirect: str
    challenge: str
    until: float


@dataclass
class Codes:
    """The codes that are out.

    Args:
        clock: in seconds; never goes back.
    """

    clock: Callable[[], float] = time.monotonic
    _granted: dict[str, _Granted] = field(default_factory=dict)

    def grant(self, person: str, redirect: str, challenge: str) -> str:
        """Return a new code.

        Args:
            person: who has logged in.
            redirect: where the code is sent.
            challenge: SHA-256 of the verifier that redeems it, base64url.

        Raises:
            CodeRefusedError: too many are out.
        """
        now = self.clock()
        self._granted = {code: one for code, one in self._granted.items() if one.until > now}
        if len(self._granted) >= MAX_CODES:
            raise CodeRefusedError("too many logins at once")
        code = secrets.token_urlsafe(32)
        self._granted[code] = _Granted(person, redirect, challenge, now + CODE_SECONDS)
        return code

    def redeem(self, code: str, redirect: str, verifier: str) -> str:
        """Return who has logged in, and forget the code, whatever comes of it.

        Raises:
            CodeRefusedError: unknown, used, late, sent elsewhere, or asked for by another.
        """
        granted = self._granted.pop(code, None)
        challenge = challenge_of(verifier)
        if (
            granted is None
            or granted.until < self.clock()
            or granted.redirect != redirect
            or not hmac.compare_digest(granted.challenge.encode(), challenge.encode())
        ):
            raise CodeRefusedError("invalid_grant")
        return granted.person


def challenge_of(verifier: str) -> str:
    """Return the S256 challenge of a verifier."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
