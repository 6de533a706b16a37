"""Ed25519 keys of services and clients as JWK files (RFC 8037: kty OKP, crv Ed25519)."""

import json

from joserfc.jwk import OKPKey


def to_bytes(key: OKPKey) -> bytes:
    """Return the whole key, secret part included, as the JSON that services and clients load."""
    return json.dumps(key.as_dict(private=True), indent=2, sort_keys=True).encode() + b"\n"


def public_part(key: OKPKey) -> str:
    """Return the raw public key in unpadded base64url, as ``trust.toml`` holds it."""
    return str(key.as_dict(private=False)["x"])
