"""Service tokens: who calls a service, and for what. Short-lived JWTs (RFC 7519) signed with Ed25519 (RFC 9864).

Each client signs its own tokens; the trust policy pins its public key and the scopes it may use, so no service can
mint for another and there is no shared secret. Header ``kid`` = client id; ``iss`` = ``sub`` = client id; ``aud`` =
``constitution/<environment>``; at most five minutes from ``iat`` to ``exp``. The only algorithm taken is ``Ed25519``.
"""

import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc import jwk, jws, jwt
from joserfc.errors import JoseError
from pydantic import TypeAdapter, ValidationError

from constitution.environment import Identifier
from constitution.errors import ForbiddenError, InvalidRequestError
from constitution.trust.trust_policy import TrustPolicy, decode_key
from signatures.regular_file import read_regular

ALGORITHM = "Ed25519"
MAX_TTL = timedelta(minutes=5)  # a stolen token is good no longer
CLOCK_SKEW = timedelta(seconds=30)  # a caller's clock may be this far ahead of ours
MAX_KEY_FILE = 64 * 1024  # bytes; ours have about 200
MAX_TOKEN = 4096  # characters; ours have about 450
_IDENTIFIER = TypeAdapter(Identifier)


@dataclass(frozen=True, slots=True)
class ClientKey:
    """A private Ed25519 key with its owner's id (JWK: RFC 7517, RFC 8037). Signs tokens or release statements."""

    id: str
    key: jwk.OKPKey = field(repr=False)

    @classmethod
    def load(cls, path: Path) -> "ClientKey":
        """Read a JWK file.

        Raises:
            InvalidRequestError: it cannot be read, or is no private Ed25519 key with a ``kid``.
        """
        try:
            return cls.parse(read_regular(path, MAX_KEY_FILE).decode("utf-8"))
        except UnicodeDecodeError as error:
            raise InvalidRequestError(f"the key file {path} cannot be read: it is not UTF-8") from error

    @classmethod
    def parse(cls, text: str) -> "ClientKey":
        """Read a JWK.

        Raises:
            InvalidRequestError: no private Ed25519 key with a ``kid``. The message repeats nothing of the key.
        """
        refusal = InvalidRequestError(
            "this is no private Ed25519 key as a JWK with a kid",
            hint="make such keys by the key ceremony (docs/cli.md, init)",
        )
        try:
            data = json.loads(text)
            kind = data["kty"], data["crv"]
            kid = _IDENTIFIER.validate_python(data["kid"], strict=True)
            key = jwk.OKPKey.import_key({name: data[name] for name in ("kty", "crv", "x", "d")})
            public = decode_key(data["x"])
        except (ValueError, KeyError, TypeError, RecursionError, ValidationError, JoseError):
            raise refusal from None
        private = key.private_key
        if kind != ("OKP", "Ed25519") or not isinstance(private, Ed25519PrivateKey):
            raise refusal
        if private.public_key().public_bytes_raw() != public:
            raise refusal
        return cls(kid, key)

    @classmethod
    def generate(cls, client_id: str) -> "ClientKey":
        """Make a new key for ``client_id``.

        Raises:
            InvalidRequestError: the id is no identifier.
        """
        try:
            _IDENTIFIER.validate_python(client_id)
        except ValidationError as error:
            raise InvalidRequestError(f"{client_id!r} is no identifier") from error
        return cls(client_id, jwk.OKPKey.generate_key("Ed25519"))

    @property
    def private_key(self) -> Ed25519PrivateKey:
        """Return the key as `signatures.dsse.sign_ed25519` takes it."""
        key = self.key.private_key
        if not isinstance(key, Ed25519PrivateKey):
            raise InvalidRequestError("the key is no private Ed25519 key")
        return key

    def public_text(self) -> str:
        """Return the public key as trust.toml writes it: raw, unpadded base64url."""
        return str(self.key.as_dict(private=False)["x"])

    def to_json(self) -> str:
        """Return the private JWK; write it with mode 0600."""
        return json.dumps({**self.key.as_dict(private=True), "kid": self.id}, sort_keys=True)


def mint(
    client_key: ClientKey, *, environment: str, scopes: Iterable[str], now: datetime, ttl: timedelta = MAX_TTL
) -> str:
    """Make a token.

    Args:
        client_key: the caller's own key.
        environment: whose services it is for.
        scopes: what it is for; the trust policy must grant each.
        now: the caller's time; aware.
        ttl: how long it is good for, at most five minutes.
    """
    issued = int(now.timestamp())
    claims = {
        "iss": client_key.id,
        "sub": client_key.id,
        "aud": f"constitution/{environment}",
        "iat": issued,
        "exp": issued + int(min(ttl, MAX_TTL).total_seconds()),
        "jti": secrets.token_urlsafe(16),
        "scope": " ".join(scopes),
    }
    return jwt.encode({"alg": ALGORITHM, "kid": client_key.id}, claims, client_key.key, algorithms=[ALGORITHM])


def verify(token: str, trust: TrustPolicy, *, environment: str, scope: str, now: datetime) -> str:
    """Return the id of the client whose token allows ``scope``.

    Raises:
        ForbiddenError: no token of a pinned client key, for this environment, in its time, with a scope that both the
            token and the trust policy grant. The message says which, and repeats nothing of the token.
    """
    client_id, claims = _claims(token, trust)
    if claims.get("iss") != client_id or claims.get("sub") != client_id:
        raise ForbiddenError("the token's issuer and subject are not the client that signed it")
    if claims.get("aud") != f"constitution/{environment}":
        raise ForbiddenError(f"the token is for another audience than constitution/{environment}")
    issued, expires = claims.get("iat"), claims.get("exp")
    if type(issued) is not int or type(expires) is not int:
        raise ForbiddenError("the token says no time of issue and expiry")
    seconds = now.timestamp()
    if expires <= seconds:
        raise ForbiddenError("the token has expired", hint="mint a new one; compare the clocks")
    if issued > seconds + CLOCK_SKEW.total_seconds():
        raise ForbiddenError("the token is dated in the future", hint="compare the clocks")
    if not 0 < expires - issued <= MAX_TTL.total_seconds():
        raise ForbiddenError("the token is good for more than five minutes")
    if not isinstance(claims.get("jti"), str) or not claims["jti"]:
        raise ForbiddenError("the token has no id")
    client = trust.client(client_id)
    asked = claims.get("scope")
    if not isinstance(asked, str) or scope not in asked.split(" "):
        raise ForbiddenError(f"the token lacks the scope {scope}")
    if client is None or scope not in client.scopes:
        raise ForbiddenError(f"the trust policy does not grant the scope {scope} to {client_id}")
    return client_id


def _claims(token: str, trust: TrustPolicy) -> tuple[str, dict[str, Any]]:
    """Return the client whose pinned key signed the token, and what it claims."""
    if len(token) > MAX_TOKEN:
        raise ForbiddenError(f"the token is longer than {MAX_TOKEN} characters")
    try:
        kid = jws.extract_compact(token.encode()).headers().get("kid")
        client = trust.client(kid) if isinstance(kid, str) else None
        if client is not None:
            key = jwk.OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": client.public_key})
            return client.id, dict(jwt.decode(token, key, algorithms=[ALGORITHM]).claims)
    except Exception as error:  # any error of the parser about a hostile token is a refusal
        raise ForbiddenError("the token does not verify") from error
    raise ForbiddenError("the token is signed by a client that the trust policy does not know")
