"""The keys and certificates of a private Sigstore: made at its first start, mode 0600 in a folder of mode 0700.

Sigstore's own kinds of keys: P-256 for certificates, their log and timestamps, Ed25519 for the signature log, whose
checkpoints are signed notes.
"""

import json
import shutil
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from joserfc.jwk import ECKey

from deploy.embedded.stack_directory import write_private

LIFETIME = timedelta(days=3650)  # of the authorities; a certificate that Fulcio issues lives ten minutes
_CLOCKS = timedelta(minutes=1)  # another process's clock may be this far behind


@dataclass(frozen=True)
class Material:
    """The files of one folder.

    Args:
        folder: with everything in it.
    """

    folder: Path

    @classmethod
    def made(cls, folder: Path) -> "Material":
        """Return the material in ``folder``, made there if it is missing; whole or not at all."""
        if not folder.exists():
            scratch = Path(tempfile.mkdtemp(prefix=".sigstore-", dir=folder.parent))  # mode 0700
            try:
                _fill(cls(scratch))
                scratch.rename(folder)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
        return cls(folder)

    def file(self, name: str) -> Path:
        """The path of one file."""
        return self.folder / name

    @cached_property
    def authority(self) -> x509.Certificate:
        """Fulcio's certificate, signed by itself."""
        return x509.load_pem_x509_certificate(self.file("fulcio.pem").read_bytes())

    @cached_property
    def timestamp_chain(self) -> list[x509.Certificate]:
        """The timestamp authority's certificate, and its root's."""
        return x509.load_pem_x509_certificates(self.file("timestamps.pem").read_bytes())

    def public_key(self, name: str) -> bytes:
        """The public key of a log (``ctlog`` or ``rekor``) as DER."""
        private = load_pem_private_key(self.file(f"{name}.key").read_bytes(), None)
        return private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def raw_public_key(self) -> bytes:
        """The signature log's public key, 32 bytes."""
        private = load_pem_private_key(self.file("rekor.key").read_bytes(), None)
        return private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def _fill(made: Material) -> None:
    authority = ec.generate_private_key(ec.SECP256R1())
    _write_key(made.file("fulcio.key"), authority)
    _write(made.file("fulcio.pem"), _pem(_root("private Sigstore", authority)))

    log = ec.generate_private_key(ec.SECP256R1())
    # TesseraCT reads SEC 1 alone.
    _write(made.file("ctlog.key"), log.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
    _write(made.file("ctlog.pem"), log.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))

    _write_key(made.file("rekor.key"), ed25519.Ed25519PrivateKey.generate())

    root, stamps = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    _write_key(made.file("timestamps.key"), stamps)
    top = _root("private timestamps", root)
    _write(made.file("timestamps.pem"), _pem(_timestamping(stamps, top, root)) + _pem(top))

    key = ECKey.generate_key("P-256", parameters={"kid": "login", "alg": "ES256", "use": "sig"})
    write_private(made.file("issuer.jwk"), json.dumps(key.as_dict(private=True)))


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _began() -> datetime:
    return datetime.now(UTC).replace(microsecond=0) - _CLOCKS


def _root(name: str, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    began, identifier = _began(), x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder(_named(name), _named(name), key.public_key(), x509.random_serial_number())
        .not_valid_before(began)
        .not_valid_after(began + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )


def _timestamping(
    key: ec.EllipticCurvePrivateKey, root: x509.Certificate, root_key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    """RFC 3161, 2.3: its one extended key usage is timestamping, and critical."""
    began = _began()
    return (
        x509.CertificateBuilder(root.subject, _named("timestamps"), key.public_key(), x509.random_serial_number())
        .not_valid_before(began)
        .not_valid_after(began + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING]), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False)
        .sign(root_key, hashes.SHA256())
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> None:
    _write(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def _write(path: Path, data: bytes) -> None:
    write_private(path, data.decode("ascii"))
