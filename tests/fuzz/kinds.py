"""What is changed, and how this process reads it: who signed it, and what it then says."""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, Final

from constitution.api import ChangeRequest
from constitution.audit_head import AuditHead
from constitution.checksum import checksum_of
from constitution.errors import ConstitutionError
from constitution.policy.document import parse
from constitution.receipt import ReceiptPredicate
from constitution.release import Envelope
from constitution.trust.approval import OrderPredicate
from constitution.untrusted import read_message
from signatures import dsse, statements, tokens
from signatures.archive_manifests import sign_manifest, verify_manifest
from signatures.attestations import sign_attestation, verify_attestation
from signatures.audit_chain import sign_head, verify_head
from signatures.current import read_current, verify_current
from signatures.openpgp import sign_detached
from signatures.receipt_verify import open_receipt
from signatures.receipts import receipt_bytes, sign_receipt
from signatures.trust_versions import checked_policy, follow, read_version, write_version
from signatures.verify import verify_document
from tests.recorded_bundles import Recorded
from tests.unit import test_attestations, test_passkeys, test_statements, trust_chain
from tests.unit.keyring import NOW, document, keyring
from tests.unit.test_current import current

REFUSALS: Final = (ConstitutionError, ValueError)  # of a message that is none: ValueError, pydantic's among them
FOLDER: Final = "1.0.0-1"
DOCUMENT: Final = json.dumps(document(), indent=2).encode()


@dataclass(frozen=True)
class Kind:
    """One kind of input.

    Args:
        genuine: bytes.
        read: what somebody signed in them; raises where nobody did.
    """

    genuine: bytes
    read: Callable[[bytes], Any]


def enveloped(verify: Callable[[Envelope], Any]) -> Callable[[bytes], Any]:
    return lambda data: verify(read_message(Envelope, data))


def signed(data: bytes, signature: bytes) -> Any:
    """Who signed a document, and what: nobody is a refusal."""
    signers = verify_document(data, [signature], keyring().trust, NOW).signers
    if not signers:
        raise ConstitutionError("signed by nobody")
    return signers, data


def by_sigstore(data: bytes) -> Any:
    recorded = Recorded()
    signers = verify_document(recorded.document, [data], recorded.trust(), recorded.now()).signers
    if verify_document(recorded.document + b" ", [data], recorded.trust(), recorded.now()).signers:
        return "another document"
    if not signers:
        raise ConstitutionError("signed by nobody")
    return signers


def claims(token: bytes) -> Any:
    text = token.decode()
    who = tokens.verify(text, keyring().trust, environment="development", scope="load:write", now=NOW)
    body = text.split(".")[1]
    return who, base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))


def sealed() -> ReceiptPredicate:
    """What a receipt says of a first release, before anybody approved or watched anything."""
    some = checksum_of(b"some")
    return ReceiptPredicate.model_validate(
        {
            **dict.fromkeys(("previous_receipt", "previous", "previous_generation", "change_request", "evidence")),
            **dict.fromkeys(("targets", "watch", "undoes", "undone_by")),
            **dict.fromkeys(("signatures", "decisions", "attestations", "events", "orders", "standings"), ()),
            "environment": "development",
            "sequence": 1,
            "sealed_at": NOW,
            "generation": 1,
            "kind": "update",
            "rings": ("default",),
            "version": "1.0.0",
            "checksum": checksum_of(DOCUMENT),
            "update_id": "00000000-0000-4000-8000-000000000001",
            "reason": "needed",
            "effective_at": NOW,
            "statement": some,
            "event_id": "e",
            "topic": "constitution.updated",
            "audit_head": {"sequence": 1, "hash": some},
            "archive": {"reported_by": "worker", "manifest": some, "files": 1, "histories": ()},
        }
    )


def read_document(data: bytes) -> Any:
    """What a document says; not signed, so only the errors are looked at."""
    parse(data)
    return None


@cache
def kinds() -> dict[str, Kind]:
    """Every kind, with genuine signatures of now."""
    ring = keyring()
    signature = sign_detached(DOCUMENT, ring.tsk["mara"])
    release, recorded = current(), Recorded()
    order = OrderPredicate(
        environment="development", workflow_id="w", update_id="u", order="skip", step="broadcast", reason="is down",
        issued_at=NOW, expires_at=NOW + timedelta(hours=1),
    )  # fmt: skip
    request = ChangeRequest(id="CR-1", author="mara", checksum=checksum_of(DOCUMENT), reason="needed")
    head = AuditHead(environment="development", sequence=30, hash=checksum_of(b"30"), time=NOW)
    statement = test_passkeys.STATEMENT
    gate = sign_attestation(test_attestations.gate(), ring.assessor.id, ring.assessor.private_key)

    def envelope(value: Envelope) -> bytes:
        return value.model_dump_json().encode()

    manifest = json.dumps({"files": {"document.json": checksum_of(DOCUMENT)}}).encode()
    listed = sign_manifest("development", FOLDER, manifest, ring.worker.id, ring.worker.private_key)
    writer = checked_policy(ring.toml.replace('"lease:write"', '"lease:write", "standing:write"'), ring.files)
    receipt = receipt_bytes(sign_receipt(sealed(), ring.service.id, ring.service.private_key))
    before = trust_chain.first()
    after = trust_chain.next_of(before, ('name = "Olga"', 'name = "Olga Berg"'))
    following = write_version(after, trust_chain.version(before, after, "alva", "bruno").signatures)

    return {
        "document, as it is read": Kind(DOCUMENT, read_document),
        "document, as it is signed": Kind(DOCUMENT, lambda data: signed(data, signature)),
        "OpenPGP signature": Kind(signature, lambda data: signed(DOCUMENT, data)),
        "Sigstore bundle": Kind(recorded.bundle("mara"), by_sigstore),
        "passkey's assertion": Kind(
            test_passkeys.GENUINE,
            lambda data: dsse.verify_person(test_passkeys.sealed(data), test_passkeys.TRUST, test_passkeys.now()),
        ),
        "passkey's decision": Kind(
            envelope(test_passkeys.sealed(test_passkeys.ALVA.sign(statement))),
            enveloped(lambda e: statements.verify_approval(e, test_passkeys.TRUST, test_passkeys.now())),
        ),
        "decision": Kind(
            envelope(statements.sign_approval(test_statements.approval(), ring.tsk["alva"])),
            enveloped(lambda e: statements.verify_approval(e, ring.trust, NOW)),
        ),
        "order": Kind(
            envelope(statements.sign_order(order, ring.tsk["chen"])),
            enveloped(lambda e: statements.verify_order(e, ring.trust, NOW)),
        ),
        "change request": Kind(
            envelope(statements.sign_change_request(request, ring.tsk["mara"])),
            enveloped(lambda e: statements.verify_change_request(e, ring.trust, NOW)),
        ),
        "release, as Redis holds it": Kind(
            release.model_dump_json().encode(),
            lambda data: verify_current(
                read_current(data, trust=ring.trust, environment="development", ring="default"),
                trust=ring.trust,
                environment="development",
                ring="default",
            ),
        ),
        "attestation": Kind(envelope(gate), enveloped(lambda e: verify_attestation(e, ring.trust))),
        "audit head": Kind(
            envelope(sign_head(head, ring.service.id, ring.service.private_key)),
            enveloped(lambda e: verify_head(e, ring.trust)),
        ),
        "receipt": Kind(receipt, lambda data: open_receipt(data, [ring.trust])),
        "archive manifest": Kind(manifest, lambda data: verify_manifest(listed, FOLDER, data, writer)),
        "archive manifest's signature": Kind(listed, lambda data: verify_manifest(data, FOLDER, manifest, writer)),
        "version of the trust policy": Kind(
            following, lambda data: follow(before, read_version(data, "a changed one"), NOW).checksum
        ),
        "token": Kind(
            tokens.mint(ring.worker, environment="development", scopes=["load:write"], now=NOW).encode(), claims
        ),
    }
