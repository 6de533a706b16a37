"""Makes key files without secret parts, as GnuPG exports them (GnuPG, doc/DETAILS, "GNU extensions to the S2K")."""

from collections.abc import Callable

from pysequoia.packet import PacketPile, Tag

from tests.unit.openpgp_packets import packet


def stub_on_token(tsk: bytes, certificate: bytes) -> bytes:
    """Return what `gpg --export-secret-keys` writes of a key whose secret parts were moved to a smart card."""
    return with_secret_parts(tsk, certificate, lambda public, _: public + b"\xff\x00\x65\x00GNU\x02\x10" + b"\xd2" * 16)


def with_secret_parts(tsk: bytes, certificate: bytes, secret: Callable[[bytes, bytes], bytes]) -> bytes:
    """Return a key file with the packets of a certificate, each key's body made of its public and its secret body."""
    bodies = {
        p.fingerprint: bytes(p.body) for p in PacketPile.from_bytes(tsk) if p.tag in (Tag.SecretKey, Tag.SecretSubkey)
    }
    parts = []
    for part in PacketPile.from_bytes(certificate):
        if part.tag in (Tag.PublicKey, Tag.PublicSubkey):
            number = 5 if part.tag == Tag.PublicKey else 7
            parts.append(packet(number, secret(bytes(part.body), bodies[part.fingerprint])))
        else:
            parts.append(bytes(part))
    return b"".join(parts)
