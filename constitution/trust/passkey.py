"""What a trust policy says of passkeys: whose they are, and for which pages they were made."""

import hashlib
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from constitution.base64url import decode_base64url
from constitution.model import Model


def _canonical(text: str) -> str:
    decode_base64url(text)
    return text


Base64Url = Annotated[str, StringConstraints(min_length=1, max_length=4096), AfterValidator(_canonical)]
Origin = Annotated[str, StringConstraints(pattern=r"^https?://[a-z0-9.-]+(:[1-9][0-9]{0,4})?$", max_length=300)]


class Passkey(Model):
    """A passkey (WebAuthn credential) by which a person signs statements.

    Args:
        credential: its id, base64url.
        public_key: its COSE key (RFC 9052), base64url.
    """

    credential: Base64Url
    public_key: Base64Url

    def cose(self) -> bytes:
        """Return the bytes of the public key."""
        return decode_base64url(self.public_key)

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the public key's bytes, in hex: what people compare, and the key id in an envelope."""
        return hashlib.sha256(self.cose()).hexdigest()


class RelyingParty(Model):
    """For whom passkeys are made: a browser shows a passkey only to pages of this domain.

    Args:
        id: the domain name.
        origins: the pages' origins that may ask a passkey to sign, compared exactly.
    """

    id: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", max_length=253)]
    origins: Annotated[tuple[Origin, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _own_pages(self) -> Self:
        for origin in self.origins:
            host = urlsplit(origin).hostname or ""
            if host != self.id and not host.endswith(f".{self.id}"):
                raise ValueError(f"{origin} is no page of {self.id}")
            if origin.startswith("http://") and self.id != "localhost":
                raise ValueError(f"{origin} is not protected by TLS; only localhost may be reached without")
        return self
