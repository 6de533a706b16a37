"""DSSE envelopes and the statements inside: who signed, what it says, and that no byte of it can be changed."""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitution.api import ChangeRequest
from constitution.checksum import checksum_of
from constitution.errors import InvalidRequestError, UntrustedError
from constitution.release import Envelope, Kind, Previous, ReleasePredicate
from constitution.trust.approval import ApprovalPredicate, BoardDecision, OrderPredicate
from signatures import dsse, statements
from signatures.tokens import ClientKey
from tests.unit.keyring import NOW, keyring

CHECKSUM = checksum_of(b"a document")
OTHER = checksum_of(b"another document")


def release(**changes: Any) -> ReleasePredicate:
    fields: dict[str, Any] = {
        "environment": "development",
        "rings": ("default",),
        "generation": 7,
        "kind": Kind.UPDATE,
        "version": "1.1.0",
        "checksum": CHECKSUM,
        "previous": OTHER,
        "effective_at": NOW,
        "signatures": (OTHER,),
        "approvals": (OTHER,),
        "evidence": OTHER,
        "update_id": "u",
    }
    return ReleasePredicate(**{**fields, **changes})


def approval(**changes: Any) -> ApprovalPredicate:
    fields: dict[str, Any] = {
        "kind": Kind.UPDATE,
        "environment": "development",
        "checksum": CHECKSUM,
        "version": "1.1.0",
        "previous": Previous(version="1.0.0", checksum=OTHER),
        "change_request": "CR-1",
        "evidence": OTHER,
        "decision": BoardDecision.APPROVE,
        "reason": "looked at it",
        "issued_at": NOW,
        "expires_at": NOW + timedelta(days=7),
    }
    return ApprovalPredicate(**{**fields, **changes})


def signed_release(**changes: Any) -> Envelope:
    ring = keyring()
    return statements.sign_release(release(**changes), ring.service.id, ring.service.private_key)


def rewritten(envelope: Envelope, payload: bytes) -> Envelope:
    return envelope.model_copy(update={"payload": base64.b64encode(payload).decode()})


def test_pae_is_as_the_specification_writes_it() -> None:
    """Test vector of github.com/secure-systems-lab/dsse, protocol.md."""
    assert dsse.pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


class TestRelease:
    def test_round_trip(self) -> None:
        assert statements.verify_release(signed_release(), keyring().trust) == release()

    def test_the_statement_is_an_in_toto_statement_about_the_document(self) -> None:
        statement = json.loads(base64.b64decode(signed_release().payload))
        assert statement["_type"] == "https://in-toto.io/Statement/v1"
        assert statement["subject"] == [{"name": "constitution", "digest": {"sha256": CHECKSUM[7:]}}]

    def test_a_withdrawal_is_about_the_withdrawn_document(self) -> None:
        envelope = signed_release(kind=Kind.WITHDRAW, checksum=None, version=None)
        statement = json.loads(base64.b64decode(envelope.payload))
        assert statement["subject"][0]["digest"]["sha256"] == OTHER[7:]
        assert statements.verify_release(envelope, keyring().trust).checksum is None
        with pytest.raises(InvalidRequestError):
            signed_release(kind=Kind.WITHDRAW, checksum=None, version=None, previous=None)

    @given(st.data())
    def test_any_changed_byte_is_refused(self, data: st.DataObject) -> None:
        envelope = signed_release()
        raw = json.loads(envelope.model_dump_json())
        target = data.draw(st.sampled_from(["payload", "payloadType", "keyid", "sig"]))
        holder = raw if target.startswith("payload") else raw["signatures"][0]
        text = bytearray(holder[target].encode())
        position = data.draw(st.integers(0, len(text) - 1))
        text[position] = data.draw(st.integers(32, 126).filter(lambda byte: byte != text[position]))
        holder[target] = text.decode()
        with pytest.raises(UntrustedError):
            statements.verify_release(Envelope.model_validate(raw), keyring().trust)

    @given(st.data())
    def test_any_changed_byte_of_the_decoded_statement_is_refused(self, data: st.DataObject) -> None:
        envelope = signed_release()
        payload = bytearray(base64.b64decode(envelope.payload))
        position = data.draw(st.integers(0, len(payload) - 1))
        payload[position] ^= data.draw(st.integers(1, 255))
        with pytest.raises(UntrustedError):
            statements.verify_release(rewritten(envelope, bytes(payload)), keyring().trust)

    def test_another_service_key_is_refused(self) -> None:
        stranger = ClientKey.generate("constitution-service")
        envelope = statements.sign_release(release(), stranger.id, stranger.private_key)
        with pytest.raises(UntrustedError, match="does not verify"):
            statements.verify_release(envelope, keyring().trust)

    def test_a_client_key_signs_no_statement(self) -> None:
        worker = keyring().worker
        envelope = statements.sign_release(release(), worker.id, worker.private_key)
        with pytest.raises(UntrustedError, match="does not know"):
            statements.verify_release(envelope, keyring().trust)

    def test_a_person_signs_no_release(self) -> None:
        ring = keyring()
        payload = base64.b64decode(signed_release().payload)
        with pytest.raises(UntrustedError):
            statements.verify_release(dsse.sign_openpgp(payload, statements.IN_TOTO, ring.tsk["alva"]), ring.trust)

    @pytest.mark.parametrize("payload", [b"[]", b"{}", b"\xff", b'{"a":1,"a":1}', b'{"a":1e400}'])
    def test_a_payload_that_is_no_statement_is_refused_though_signed(self, payload: bytes) -> None:
        ring = keyring()
        envelope = dsse.sign_ed25519(payload, statements.IN_TOTO, ring.service.id, ring.service.private_key)
        with pytest.raises(UntrustedError):
            statements.verify_release(envelope, ring.trust)

    @pytest.mark.parametrize("layout", [{"indent": 1}, {"separators": (", ", ":")}, {"separators": (",", ":")}])
    def test_a_good_statement_in_another_writing_is_refused_though_signed(self, layout: dict[str, Any]) -> None:
        ring = keyring()
        statement = json.loads(base64.b64decode(signed_release().payload))
        unsorted = dict(reversed(statement.items()))
        payload = json.dumps(unsorted, **layout).encode()
        envelope = dsse.sign_ed25519(payload, statements.IN_TOTO, ring.service.id, ring.service.private_key)
        with pytest.raises(UntrustedError, match="canonical form"):
            statements.verify_release(envelope, ring.trust)

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            (("_type",), "https://in-toto.io/Statement/v0.1"),
            (("predicateType",), "urn:somaagenthub:constitution:approval:v1"),
            (("subject",), []),
            (("subject", 0, "digest", "sha256"), OTHER[7:]),
            (("subject", 0, "name"), "other"),
            (("predicate", "generation"), "7"),
            (("predicate", "generation"), 0),
            (("predicate", "effective_at"), "2026-11-22 10:00:00Z"),
            (("predicate", "surprise"), 1),
            (("surprise",), 1),
            (("predicate", "checksum"), None),
        ],
    )
    def test_a_statement_of_another_shape_is_refused_though_signed(self, path: tuple[Any, ...], value: Any) -> None:
        ring = keyring()
        statement = json.loads(base64.b64decode(signed_release().payload))
        holder = statement
        for step in path[:-1]:
            holder = holder[step]
        holder[path[-1]] = value
        payload = dsse.statement_bytes(statement)
        envelope = dsse.sign_ed25519(payload, statements.IN_TOTO, ring.service.id, ring.service.private_key)
        with pytest.raises(UntrustedError):
            statements.verify_release(envelope, ring.trust)

    def test_base64_in_another_form_is_refused(self) -> None:
        envelope = signed_release()
        for payload in (envelope.payload + "\n", envelope.payload.rstrip("="), envelope.payload + "===="):
            with pytest.raises(UntrustedError):
                statements.verify_release(envelope.model_copy(update={"payload": payload}), keyring().trust)

    def test_base64_with_other_unused_bits_is_refused(self) -> None:
        """64 bytes leave four bits of the last character unused: it decodes to the same signature."""
        envelope = signed_release()
        sig = envelope.signatures[0].sig
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        other = sig[:-3] + alphabet[alphabet.index(sig[-3]) + 1] + "=="
        assert base64.b64decode(other) == base64.b64decode(sig)
        changed = Envelope.Signature(keyid=envelope.signatures[0].keyid, sig=other)
        with pytest.raises(UntrustedError, match="canonical base64"):
            statements.verify_release(envelope.model_copy(update={"signatures": (changed,)}), keyring().trust)

    def test_two_signatures_are_refused(self) -> None:
        envelope = signed_release()
        with pytest.raises(UntrustedError, match="2 signatures"):
            statements.verify_release(
                envelope.model_copy(update={"signatures": envelope.signatures * 2}), keyring().trust
            )


class TestApproval:
    def test_round_trip(self) -> None:
        ring = keyring()
        envelope = statements.sign_approval(approval(), ring.tsk["alva"])
        assert statements.verify_approval(envelope, ring.trust, NOW) == ("alva", approval())
        assert envelope.signatures[0].keyid == ring.trust.people[2].openpgp[0].fingerprint

    def test_a_withdrawal_without_document_is_bound_by_its_generation(self) -> None:
        ring = keyring()
        predicate = approval(
            kind=Kind.WITHDRAW, checksum=None, version=None, previous=None, evidence=None, rollback_of=3
        )
        envelope = statements.sign_approval(predicate, ring.tsk["alva"])
        assert statements.verify_approval(envelope, ring.trust, NOW)[1] == predicate
        with pytest.raises(InvalidRequestError):
            statements.sign_approval(predicate.model_copy(update={"rollback_of": None}), ring.tsk["alva"])

    def test_the_key_id_must_be_the_signers(self) -> None:
        ring = keyring()
        envelope = statements.sign_approval(approval(), ring.tsk["alva"])
        bruno = ring.trust.people[3].openpgp[0].fingerprint
        swapped = Envelope.Signature(keyid=bruno, sig=envelope.signatures[0].sig)
        with pytest.raises(UntrustedError):
            statements.verify_approval(envelope.model_copy(update={"signatures": (swapped,)}), ring.trust, NOW)

    def test_a_changed_decision_is_refused(self) -> None:
        ring = keyring()
        envelope = statements.sign_approval(approval(decision=BoardDecision.DENY), ring.tsk["alva"])
        payload = base64.b64decode(envelope.payload).replace(b'"deny"', b'"approve"')
        with pytest.raises(UntrustedError, match="is refused"):
            statements.verify_approval(rewritten(envelope, payload), ring.trust, NOW)

    def test_a_stranger_is_refused(self) -> None:
        from signatures.openpgp import generate_key

        tsk, _, _ = generate_key("Mallory <m@example.org>")
        with pytest.raises(UntrustedError, match="not in the trust policy"):
            statements.verify_approval(statements.sign_approval(approval(), tsk), keyring().trust, NOW)

    def test_a_document_signature_is_no_approval(self) -> None:
        """The PAE keeps the two apart: signing a document signs no statement with the same bytes."""
        from signatures.openpgp import sign_detached

        ring = keyring()
        payload = statements.approval_bytes(approval())
        envelope = statements.sign_approval(approval(), ring.tsk["alva"])
        signature = base64.b64encode(sign_detached(payload, ring.tsk["alva"])).decode()
        swapped = Envelope.Signature(keyid=envelope.signatures[0].keyid, sig=signature)
        with pytest.raises(UntrustedError):
            statements.verify_approval(envelope.model_copy(update={"signatures": (swapped,)}), ring.trust, NOW)


class TestOrder:
    def test_round_trip_and_no_other_predicate(self) -> None:
        ring = keyring()
        order = OrderPredicate(
            environment="development",
            workflow_id="w",
            update_id="u",
            order="skip",
            step="broadcast",
            reason="Slack is down",
            issued_at=NOW,
            expires_at=NOW + timedelta(hours=1),
        )
        envelope = statements.sign_order(order, ring.tsk["chen"])
        assert statements.verify_order(envelope, ring.trust, NOW) == ("chen", order)
        with pytest.raises(UntrustedError):
            statements.verify_approval(envelope, ring.trust, NOW)


class TestChangeRequest:
    def test_round_trip(self) -> None:
        ring = keyring()
        request = ChangeRequest(id="CR-1", author="mara", checksum=CHECKSUM, reason="needed")
        envelope = statements.sign_change_request(request, ring.tsk["mara"])
        assert statements.verify_change_request(envelope, ring.trust, NOW) == request

    @pytest.mark.parametrize(("author", "signer", "said"), [("mara", "marc", "signed it"), ("marc", "marc", "role")])
    def test_only_the_author_with_the_role_signs(self, author: str, signer: str, said: str) -> None:
        ring = keyring()
        request = ChangeRequest(id="CR-1", author=author, checksum=CHECKSUM, reason="needed")
        with pytest.raises(UntrustedError, match=said):
            statements.verify_change_request(statements.sign_change_request(request, ring.tsk[signer]), ring.trust, NOW)


def test_an_envelope_has_one_digest() -> None:
    envelope = signed_release()
    again = Envelope.model_validate_json(json.dumps(json.loads(envelope.model_dump_json()), indent=3))
    assert dsse.envelope_digest(again) == dsse.envelope_digest(envelope)
    assert dsse.envelope_digest(signed_release(generation=8)) != dsse.envelope_digest(envelope)


def test_signatures_of_people_are_judged_by_the_time_given() -> None:
    ring = keyring()
    envelope = statements.sign_approval(approval(), ring.tsk["alva"])
    with pytest.raises(UntrustedError, match="future"):
        statements.verify_approval(envelope, ring.trust, datetime(2020, 1, 1, tzinfo=UTC))
