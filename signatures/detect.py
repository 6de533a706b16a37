"""Tells a Sigstore bundle, an OpenPGP signature and a passkey's assertion apart by content; a name says nothing."""

from typing import Literal

from constitution import strict_json
from constitution.errors import UntrustedError

MAX_SIGNATURE = 1024 * 1024  # bytes; a large bundle has about 20 KiB
ARMOR = b"-----BEGIN PGP SIGNATURE-----"
_SIGNATURE_TAG = 2

SignatureKind = Literal["sigstore", "openpgp", "passkey"]


def detect(data: bytes) -> SignatureKind:
    """Return what kind of signature file this is.

    ``{`` first: a passkey's assertion if its ``type`` is ``public-key``, else a bundle; a signature's armor header:
    OpenPGP; a first byte with bit 7 set that is a packet of tag 2 in the new or the old format (RFC 9580 §4.2): binary
    OpenPGP. White space before text is skipped.

    Raises:
        UntrustedError: empty, above 1 MiB, or none of these.
    """
    if len(data) > MAX_SIGNATURE:
        raise UntrustedError(f"a signature file of {len(data)} bytes; at most {MAX_SIGNATURE} are taken")
    text = data.lstrip(b" \t\r\n")
    if text[:1] == b"{":
        return "passkey" if _is_credential(text) else "sigstore"
    if text.startswith(ARMOR):
        return "openpgp"
    if data and data[0] & 0x80:
        tag = data[0] & 0x3F if data[0] & 0x40 else (data[0] & 0x3C) >> 2
        if tag == _SIGNATURE_TAG:
            return "openpgp"
    raise UntrustedError(
        "a signature file is neither a Sigstore bundle nor an OpenPGP signature",
        hint="sign with `gpg --detach-sign`, `sq sign --signature-file`, or `sigstore sign --bundle`",
    )


def _is_credential(text: bytes) -> bool:
    """Say whether this is JSON of a public-key credential (Web Authentication Level 3, section 5.1)."""
    try:
        value = strict_json.read(text, max_bytes=MAX_SIGNATURE)
    except strict_json.StrictJsonError:
        return False
    return isinstance(value, dict) and value.get("type") == "public-key"
