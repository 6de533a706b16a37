"""Base64url without padding (RFC 4648, section 5), in its one canonical form."""

import base64
import binascii


def decode_base64url(text: str) -> bytes:
    """Decode it.

    Raises:
        ValueError: anything else, padded or with bits that mean nothing too.
    """
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError) as error:
        raise ValueError("is not base64url") from error
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode() != text:
        raise ValueError("is not unpadded base64url")
    return data
