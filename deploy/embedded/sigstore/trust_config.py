"""What clients of a private Sigstore are given, in Sigstore's own formats: trusted root, signing config, both in one.

Source: github.com/sigstore/protobuf-specs, sigstore_trustroot.proto.
"""

import base64
import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from deploy.embedded.sigstore.material import Material

OPERATOR = "private"
_NOTE_ED25519 = b"\x01"  # C2SP, signed-note.md, signature types


def trusted_root(material: Material, urls: Mapping[str, str], origin: str) -> dict[str, Any]:
    """Return the trusted root: what verifies signatures.

    Args:
        material: keys and certificates.
        urls: of ``fulcio``, ``ctlog``, ``rekor`` and ``timestamps``.
        origin: the signature log's name in its checkpoints.
    """
    began = material.authority.not_valid_before_utc
    # rekor-tiles, pkg/note: the log id of an Ed25519 log is its whole note key hash.
    log_id = hashlib.sha256(origin.encode() + b"\n" + _NOTE_ED25519 + material.raw_public_key()).digest()
    certificates = material.public_key("ctlog")
    return {
        "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
        "tlogs": [_log(urls["rekor"], material.public_key("rekor"), "PKIX_ED25519", log_id, began)],
        "certificateAuthorities": [_authority(urls["fulcio"], [material.authority], began)],
        "ctlogs": [
            _log(urls["ctlog"], certificates, "PKIX_ECDSA_P256_SHA_256", hashlib.sha256(certificates).digest(), began)
        ],
        "timestampAuthorities": [_authority(urls["timestamps"], material.timestamp_chain, began)],
    }


def signing_config(urls: Mapping[str, str], began: datetime) -> dict[str, Any]:
    """Return the signing config: who is asked for a signature.

    Args:
        urls: of ``fulcio``, ``rekor``, ``timestamps`` and ``issuer``.
        began: since when.
    """

    def service(url: str, version: int = 1) -> list[dict[str, Any]]:
        valid = {"start": _moment(began)}
        return [{"url": url, "majorApiVersion": version, "validFor": valid, "operator": OPERATOR}]

    return {
        "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
        "caUrls": service(urls["fulcio"]),
        "oidcUrls": service(urls["issuer"]),
        "rekorTlogUrls": service(urls["rekor"], version=2),
        "tsaUrls": service(urls["timestamps"]),
        "rekorTlogConfig": {"selector": "ANY"},
        "tsaConfig": {"selector": "ANY"},
    }


def trust_config(root: Mapping[str, Any], signing: Mapping[str, Any]) -> dict[str, Any]:
    """Return both in the one file that signers are given."""
    return {
        "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
        "trustedRoot": root,
        "signingConfig": signing,
    }


def _log(url: str, key: bytes, details: str, log_id: bytes, began: datetime) -> dict[str, Any]:
    public = {"rawBytes": _b64(key), "keyDetails": details, "validFor": {"start": _moment(began)}}
    return {"baseUrl": url, "hashAlgorithm": "SHA2_256", "publicKey": public, "logId": {"keyId": _b64(log_id)}}


def _authority(url: str, chain: list[x509.Certificate], began: datetime) -> dict[str, Any]:
    names = [attribute.value for attribute in chain[-1].subject]
    return {
        "subject": {"organization": OPERATOR, "commonName": names[0]},
        "uri": url,
        "certChain": {"certificates": [{"rawBytes": _b64(one.public_bytes(Encoding.DER))} for one in chain]},
        "validFor": {"start": _moment(began)},
    }


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _moment(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
