"""Tells a Sigstore bundle from an OpenPGP signature by content; a file's name says nothing."""

from typing import Literal

from constitution.errors import UntrustedError

MAX_SIGNATURE = 1024 * 1024  # bytes; a large bundle has about 20 KiB
ARMOR = b"-----BEGIN PGP SIGNATURE-----"
_SIGNATURE_TAG = 2

SignatureKind = Literal["sigstore", "openpgp"]


def detect(data: bytes) -> SignatureKind:
    """Return what kind of signature file this is.

    ``{`` first: a bundle; the armor header of a signature: OpenPGP; a first byte with bit 7 set that is a packet of
    tag 2 in the new or the old format (RFC 9580 §4.2): binary OpenPGP. White space before text is skipped.

    Raises:
        UntrustedError: empty, above 1 MiB, or neither.
    """
    if len(data) > MAX_SIGNATURE:
        raise UntrustedError(f"a signature file of {len(data)} bytes; at most {MAX_SIGNATURE} are taken")
    text = data.lstrip(b" \t\r\n")
    if text[:1] == b"{":
        return "sigstore"
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
