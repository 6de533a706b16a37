"""Keyless signatures under a trusted root of the tests' own: a CA, a certificate log and a signature log, three keys.

These are not Sigstore's servers: no Fulcio, no Rekor, no login. Here somebody who holds the three keys writes what
those would: the certificate for an identity with the certificate log's timestamp in it (RFC 6962, 3.2), the log's
entry with its promise and its proof of inclusion under a signed checkpoint. Whether that counts is judged by
sigstore-python and the product alone. A bundle of the public instance is in tests/data/sigstore.
"""

import base64
import hashlib
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import rfc8785
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

ISSUER = "https://accounts.example.org"
_CLAIMS = tuple(f"1.3.6.1.4.1.57264.1.{claim}" for claim in (1, 8, 12, 14))
"""Fulcio, docs/oid-info.md: the issuer in raw bytes, the issuer, the source's repository, its ref."""
_TIMESTAMPS = ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")  # RFC 6962, 3.3
_SIGNED_BY_ECDSA_OVER_SHA256 = b"\x04\x03"
_PRECERTIFICATE = 1
_ORIGIN = "log.example.org"
_BEGAN = timedelta(days=1)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _der(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _sign(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    return key.sign(data, ec.ECDSA(hashes.SHA256()))


def _id(key: ec.EllipticCurvePrivateKey) -> bytes:
    return hashlib.sha256(_der(key)).digest()


def _sized(data: bytes) -> bytes:
    return struct.pack("!H", len(data)) + data


@dataclass(frozen=True)
class KeylessAuthority:
    """Who issues certificates to identities, and the two logs."""

    ca: ec.EllipticCurvePrivateKey = field(default_factory=_key)
    certificate_log: ec.EllipticCurvePrivateKey = field(default_factory=_key)
    signature_log: ec.EllipticCurvePrivateKey = field(default_factory=_key)
    promises: bool = True  # certificates hold the certificate log's timestamp
    root: x509.Certificate = field(init=False)  # made anew at each start

    def __post_init__(self) -> None:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an authority of the tests")])
        now = datetime.now(UTC)
        root = (
            x509.CertificateBuilder(name, name, self.ca.public_key(), x509.random_serial_number())
            .not_valid_before(now - _BEGAN)
            .not_valid_after(now + timedelta(days=3650))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.ca.public_key()), critical=False)
            .sign(self.ca, hashes.SHA256())
        )
        object.__setattr__(self, "root", root)

    def trusted_root(self) -> bytes:
        """The file that a trust policy pins."""
        began = {"start": (datetime.now(UTC) - _BEGAN).strftime("%Y-%m-%dT%H:%M:%SZ")}

        def log(key: ec.EllipticCurvePrivateKey, url: str) -> dict[str, Any]:
            public = {"rawBytes": _b64(_der(key)), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": began}
            identity = {"keyId": _b64(_id(key))}
            return {"baseUrl": url, "hashAlgorithm": "SHA2_256", "publicKey": public, "logId": identity}

        certificate = {"rawBytes": _b64(self.root.public_bytes(Encoding.DER))}
        content = {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [log(self.signature_log, f"https://{_ORIGIN}")],
            "certificateAuthorities": [
                {
                    "subject": {"organization": "tests", "commonName": "an authority of the tests"},
                    "uri": "https://ca.example.org",
                    "certChain": {"certificates": [certificate]},
                    "validFor": began,
                }
            ],
            "ctlogs": [log(self.certificate_log, "https://ctlog.example.org")],
            "timestampAuthorities": [],
        }
        return json.dumps(content).encode()

    def sign(
        self, document: bytes, identity: str, issuer: str = ISSUER, *, repository: str = "", ref: str = ""
    ) -> bytes:
        """Return the bundle of somebody who has shown to ``issuer`` that they are ``identity``.

        Args:
            document: what is signed.
            identity: an e-mail address, or the URI of a CI workflow.
            issuer: of the login.
            repository: of a CI run.
            ref: of a CI run.
        """
        key = _key()
        certificate = self._certificate(key, identity, [issuer, issuer, repository, ref])
        signature, digest = _sign(key, document), hashlib.sha256(document).digest()
        body = rfc8785.dumps(
            {
                "apiVersion": "0.0.1",
                "kind": "hashedrekord",
                "spec": {
                    "data": {"hash": {"algorithm": "sha256", "value": digest.hex()}},
                    "signature": {
                        "content": _b64(signature),
                        "publicKey": {"content": _b64(certificate.public_bytes(Encoding.PEM))},
                    },
                },
            }
        )
        bundle = {
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {
                "certificate": {"rawBytes": _b64(certificate.public_bytes(Encoding.DER))},
                "tlogEntries": [self._entry(body)],
            },
            "messageSignature": {
                "messageDigest": {"algorithm": "SHA2_256", "digest": _b64(digest)},
                "signature": _b64(signature),
            },
        }
        return json.dumps(bundle).encode()

    def _certificate(self, key: ec.EllipticCurvePrivateKey, identity: str, claims: Sequence[str]) -> x509.Certificate:
        now = datetime.now(UTC)
        name = x509.UniformResourceIdentifier if identity.startswith("https:") else x509.RFC822Name
        builder = (
            x509.CertificateBuilder(self.root.subject, x509.Name([]), key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(minutes=9))
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
            .add_extension(x509.SubjectAlternativeName([name(identity)]), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.ca.public_key()), critical=False)
        )
        for oid, claim in zip(_CLAIMS, claims, strict=True):
            if claim:
                data = claim.encode()
                value = data if oid == _CLAIMS[0] else b"\x0c" + bytes([len(data)]) + data  # a DER UTF8String
                extension = x509.UnrecognizedExtension(ObjectIdentifier(oid), value)
                builder = builder.add_extension(extension, critical=False)
        if not self.promises:
            return builder.sign(self.ca, hashes.SHA256())
        precertificate = builder.sign(self.ca, hashes.SHA256()).tbs_certificate_bytes
        moment = int(now.timestamp() * 1000)
        entry = _id(self.ca) + struct.pack("!I", len(precertificate))[1:] + precertificate
        signed = struct.pack("!BBQH", 0, 0, moment, _PRECERTIFICATE) + entry + _sized(b"")
        timestamp = struct.pack("!B32sQ", 0, _id(self.certificate_log), moment) + _sized(b"")
        timestamp += _SIGNED_BY_ECDSA_OVER_SHA256 + _sized(_sign(self.certificate_log, signed))
        listed = _sized(_sized(timestamp))
        value = (
            b"\x04\x81" + bytes([len(listed)]) + listed
            if len(listed) > 127
            else b"\x04" + bytes([len(listed)]) + listed
        )
        return builder.add_extension(x509.UnrecognizedExtension(_TIMESTAMPS, value), critical=False).sign(
            self.ca, hashes.SHA256()
        )

    def _entry(self, body: bytes) -> dict[str, Any]:
        """Return the entry as the second of two leaves (RFC 6962, 2.1)."""
        encoded, seconds, index, log_id = _b64(body), int(datetime.now(UTC).timestamp()), 1, _id(self.signature_log)
        before, leaf = (hashlib.sha256(b"\0" + data).digest() for data in (b"an earlier entry", body))
        root = hashlib.sha256(b"\1" + before + leaf).digest()
        promise: dict[str, Any] = {
            "body": _b64(body),
            "integratedTime": seconds,
            "logID": log_id.hex(),
            "logIndex": index,
        }
        note = f"{_ORIGIN}\n2\n{_b64(root)}\n"
        checkpoint = f"{note}\n\u2014 {_ORIGIN} {_b64(log_id[:4] + _sign(self.signature_log, note.encode()))}\n"
        return {
            "logIndex": str(index),
            "logId": {"keyId": _b64(log_id)},
            "kindVersion": {"kind": "hashedrekord", "version": "0.0.1"},
            "integratedTime": str(seconds),
            "inclusionPromise": {"signedEntryTimestamp": _b64(_sign(self.signature_log, rfc8785.dumps(promise)))},
            "inclusionProof": {
                "logIndex": str(index),
                "rootHash": _b64(root),
                "treeSize": "2",
                "hashes": [_b64(before)],
                "checkpoint": {"envelope": checkpoint},
            },
            "canonicalizedBody": encoded,
        }


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
