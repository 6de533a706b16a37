"""Signed records in the artifact store: whoever has no service key can destroy them, and make none believed."""

import base64
import gzip
import json
from typing import Any
from uuid import uuid4

import pytest

from constitution.checksum import checksum_of
from constitution.errors import UntrustedError
from constitution.release import Envelope, Kind, ReleasePredicate, Standing
from services.constitution_service.generations.records import (
    RELEASE_RECORD,
    EventRecord,
    ReleaseRecord,
    StandingFile,
    read_release_record,
    read_standing,
    sign_record,
)
from services.constitution_service.statement_key import StatementKey
from signatures import dsse
from signatures.statements import sign_release
from signatures.tokens import ClientKey
from tests.unit.keyring import NOW, keyring

ENVIRONMENT = "development"
TRUST = keyring().trust
SERVICE = StatementKey(keyring().service.id, keyring().service.private_key)
CHECKSUM = checksum_of(b"a document")


def release(key: StatementKey = SERVICE, tenants: int = 1, **changes: Any) -> ReleaseRecord:
    said: dict[str, Any] = {
        "environment": ENVIRONMENT,
        "rings": ("default",),
        "generation": 7,
        "kind": Kind.UPDATE,
        "version": "1.0.0",
        "checksum": CHECKSUM,
        "previous": None,
        "effective_at": NOW,
        "update_id": str(uuid4()),
    }
    predicate = ReleasePredicate(**(said | changes))
    event = {"key": "k", "headers": {}, "value": "x" * 4096}
    return ReleaseRecord(
        statement=sign_release(predicate, key.id, key.private_key),
        previous_generation=None,
        event_id=str(uuid4()),
        change_request=None,
        reason="the test",
        approvers=(),
        approvals=(),
        workflow={},
        signed_request=None,
        evidence=None,
        events=tuple(EventRecord(tenant=f"t{n}", event_id=f"e{n}", **event) for n in range(tenants)),
    )


def standing(**changes: Any) -> StandingFile:
    said: dict[str, Any] = {
        "environment": ENVIRONMENT,
        "generation": 7,
        "checksum": CHECKSUM,
        "standing": Standing.CONFIRMED,
        "verdict": None,
        "reason": "the test",
        "update_id": str(uuid4()),
        "recorded_at": NOW,
    }
    return StandingFile(**(said | changes))


@pytest.mark.parametrize("tenants", [1, 1500])
def test_what_is_written_can_be_read_however_many_tenants_are_told(tenants: int) -> None:
    record = release(tenants=tenants)
    assert read_release_record(sign_record(record, SERVICE), TRUST, ENVIRONMENT, 7)[0] == record


def envelope(payload: bytes, key: StatementKey = SERVICE) -> bytes:
    signed = dsse.sign_ed25519(payload, RELEASE_RECORD, key.id, key.private_key)
    return signed.model_dump_json().encode()


def resigned(by: StatementKey) -> bytes:
    payload = dsse.statement_bytes(release().model_dump(mode="json"))
    return envelope(payload, by)


STRANGER = StatementKey(SERVICE.id, ClientKey.generate(SERVICE.id).private_key)
WORKER = StatementKey("worker", keyring().worker.private_key)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[" * 1_000_000,
        gzip.compress(sign_record(release(), SERVICE)),
        resigned(STRANGER),
        resigned(WORKER),
        sign_record(release(STRANGER), SERVICE),
        sign_record(release(environment="staging"), SERVICE),
        sign_record(release(generation=8), SERVICE),
        sign_record(standing(), SERVICE),
        envelope(b'{"a":' * 100 + b"1" + b"}" * 100),
        envelope(gzip.compress(b"{}")),
        envelope(b'{"statement": NaN}'),
        json.dumps({"payloadType": RELEASE_RECORD, "payload": "e30=", "signatures": []}).encode(),
    ],
    ids=[
        *("empty", "deep", "compressed", "same key id", "a client's key", "foreign statement", "other environment"),
        *("other generation", "a standing", "deep payload", "compressed payload", "no JSON", "unsigned"),
    ],
)
def test_no_forged_or_foreign_release_record_is_believed(data: bytes) -> None:
    with pytest.raises(UntrustedError):
        read_release_record(data, TRUST, ENVIRONMENT, 7)


def test_a_record_changed_by_one_byte_is_not_believed() -> None:
    genuine = Envelope.model_validate_json(sign_record(release(), SERVICE))
    payload = base64.b64decode(genuine.payload).replace(b"the test", b"the best")
    changed = genuine.model_copy(update={"payload": base64.b64encode(payload).decode()})
    with pytest.raises(UntrustedError, match="does not verify"):
        read_release_record(changed.model_dump_json().encode(), TRUST, ENVIRONMENT, 7)


@pytest.mark.parametrize("changes", [{"environment": "staging"}, {"generation": 8}, {"standing": Standing.POISONED}])
def test_a_standing_of_something_else_is_not_believed(changes: dict[str, Any]) -> None:
    with pytest.raises(UntrustedError):
        read_standing(sign_record(standing(**changes), SERVICE), TRUST, ENVIRONMENT, 7, Standing.CONFIRMED)
