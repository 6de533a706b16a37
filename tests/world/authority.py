"""A company's own certificate authority: what it gives out is trusted only where its file is named."""

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_NAME = "Company authority"
_USAGES = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its key as PEM files; ``both`` is one file of the key and then the certificate."""

    certificate: Path
    key: Path
    both: Path


class Authority:
    """An authority that lives for an hour before and after now.

    Args:
        folder: takes its files; ``ca.pem`` (``file``) is what its users trust.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.file = folder / "ca.pem"
        usage = dict.fromkeys(_USAGES, False) | {
            "key_cert_sign": True,
            "crl_sign": True,
            "encipher_only": False,
            "decipher_only": False,
        }
        certificate = self._builder(_NAME, self._key.public_key(), is_authority=True).add_extension(
            x509.KeyUsage(**usage), critical=True
        )
        self.file.write_bytes(self._signed(certificate))

    def issue(self, name: str) -> Issued:
        """Give out a certificate for a server at ``localhost`` and 127.0.0.1, or for a client, of that common name."""
        key = ec.generate_private_key(ec.SECP256R1())
        addresses = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = self._builder(name, key.public_key(), is_authority=False)
        builder = builder.add_extension(x509.SubjectAlternativeName(addresses), critical=False)
        certificate = self._signed(builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False))
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        issued = Issued(*(self._folder / f"{name}.{part}.pem" for part in ("certificate", "key", "both")))
        for file, content in zip(
            (issued.certificate, issued.key, issued.both), self._parts(certificate, secret), strict=True
        ):
            file.write_bytes(content)
            file.chmod(0o600)
        return issued

    @staticmethod
    def _parts(certificate: bytes, secret: bytes) -> tuple[bytes, bytes, bytes]:
        return certificate, secret, secret + certificate

    def _builder(
        self, name: str, public_key: ec.EllipticCurvePublicKey, *, is_authority: bool
    ) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        issuer = self._key.public_key()
        return (
            x509.CertificateBuilder()
            .subject_name(_named(name))
            .issuer_name(_named(_NAME))
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer), critical=False)
        )

    def _signed(self, builder: x509.CertificateBuilder) -> bytes:
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _named(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
