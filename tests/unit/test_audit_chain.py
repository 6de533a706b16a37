"""The audit stream's chain: each way of losing, changing or inventing an event is found, and said where."""

import json
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitution.api import AuditEvent, WorkflowRef
from constitution.audit_head import AuditHead
from constitution.checksum import checksum_of
from constitution.events import ocsf_event
from constitution.release import Envelope
from signatures import dsse
from signatures.audit_chain import seal, sign_head
from signatures.audit_verify import AuditReport, AuditVerifier, verify_stream
from signatures.tokens import ClientKey
from tests.unit.keyring import NOW, keyring

TRUST = keyring().trust
KEY = keyring().service


def event(number: int, **details: Any) -> str:
    told = AuditEvent(
        id=f"e{number}",
        update_id="",
        workflow=WorkflowRef(workflow_id="", run_id=""),
        activity="lease.acquired",
        success=True,
        message=f"event {number}",
        details=details,
    )
    return json.dumps(ocsf_event(told, environment=TRUST.environment, time=NOW))


def stream(length: int, previous: str | None = None, start: int = 1, **details: Any) -> list[bytes]:
    sealed = []
    for sequence in range(start, start + length):
        sealed.append(seal(event(sequence, **details), sequence, previous))
        previous = checksum_of(sealed[-1])
    return sealed


def head(records: Sequence[bytes], sequence: int, key: ClientKey = KEY, **changes: Any) -> Envelope:
    said = {"environment": TRUST.environment, "sequence": sequence, "hash": checksum_of(records[sequence - 1])}
    return sign_head(AuditHead(**{**said, "time": NOW, **changes}), key.id, key.private_key)


WHOLE = stream(30)
HEAD = head(WHOLE, 30)


def codes(report: AuditReport) -> list[tuple[str, int, int]]:
    return [(finding.code, finding.first, finding.last) for finding in report.findings]


def altered(record: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    value = json.loads(record)
    change(value)
    return json.dumps(value).encode()


def test_a_whole_stream_is_complete_in_any_spelling_and_with_repeated_records() -> None:
    respelled = [json.dumps(json.loads(record), indent=1, ensure_ascii=True).encode() for record in WHOLE]
    report = verify_stream([*WHOLE, *respelled[10:20]], [HEAD], TRUST)

    assert report.complete
    assert (report.first, report.last, report.duplicates) == (1, 30, 10)
    assert report.lines()[0] == "complete 1–30"  # noqa: RUF001 - an en dash


def test_events_deleted_in_the_middle_are_named() -> None:
    report = verify_stream([*WHOLE[:16], *WHOLE[19:]], [HEAD], TRUST)

    assert codes(report) == [("missing", 17, 19)]
    assert report.lines()[0] == "missing 17–19"  # noqa: RUF001 - an en dash


def test_the_first_events_deleted_are_named() -> None:
    assert codes(verify_stream(WHOLE[5:], [HEAD], TRUST)) == [("missing", 1, 5)]


@pytest.mark.parametrize("heads", [[HEAD], []], ids=["with head", "by links"])
def test_a_changed_event_is_named(heads: list[Envelope]) -> None:
    changed = altered(WHOLE[22], lambda value: value.update(message="nothing happened"))
    report = verify_stream([*WHOLE[:22], changed, *WHOLE[23:]], heads, TRUST)

    assert codes(report) == [("changed", 23, 23)]
    assert report.lines()[0] == "changed at 23"


def test_an_event_whose_link_was_changed_is_named_and_not_the_one_before_it() -> None:
    changed = altered(WHOLE[22], lambda value: value["unmapped"].update(previous_event=checksum_of(b"x")))
    assert codes(verify_stream([*WHOLE[:22], changed, *WHOLE[23:]], [HEAD], TRUST)) == [("changed", 23, 23)]


def test_the_newest_event_is_proved_by_a_head_alone() -> None:
    changed = altered(WHOLE[29], lambda value: value.update(message="nothing happened"))

    assert codes(verify_stream([*WHOLE[:29], changed], [HEAD], TRUST)) == [("changed", 30, 30)]
    unproved = verify_stream([*WHOLE[:29], changed], [], TRUST)
    assert unproved.complete
    assert any(line.startswith("no head") for line in unproved.lines())


def test_the_newest_events_deleted_contradict_the_head() -> None:
    report = verify_stream(WHOLE[:27], [HEAD], TRUST)

    assert codes(report) == [("newest-missing", 28, 30)]
    assert (
        report.lines()[0]
        == f"newest events are missing: the head of {NOW.isoformat(timespec='seconds')} names 30, the last is 27"
    )


def test_a_stream_that_was_emptied_contradicts_the_head() -> None:
    assert codes(verify_stream([], [HEAD], TRUST)) == [("newest-missing", 1, 30)]
    assert codes(verify_stream([], [], TRUST)) == [("empty", 0, 0)]


def test_events_in_another_order_are_named() -> None:
    report = verify_stream([*WHOLE[:9], WHOLE[10], WHOLE[9], *WHOLE[11:]], [HEAD], TRUST)
    assert codes(report) == [("out-of-order", 10, 10)]


def test_events_that_swapped_their_numbers_are_named() -> None:
    def numbered(number: int) -> Callable[[dict[str, Any]], None]:
        return lambda value: value["metadata"].update(sequence=number)

    swapped = [altered(WHOLE[10], numbered(10)), altered(WHOLE[9], numbered(11))]
    report = verify_stream([*WHOLE[:9], *swapped, *WHOLE[11:]], [HEAD], TRUST)
    assert ("changed", 11, 11) in codes(report)


def test_a_chain_that_was_made_anew_from_some_event_on_contradicts_the_head() -> None:
    forged = [*WHOLE[:20], *stream(10, checksum_of(WHOLE[19]), 21, forged=True)]
    assert codes(verify_stream(forged, [HEAD], TRUST)) == [("changed", 30, 30)]
    assert codes(verify_stream(forged, [head(WHOLE, 25)], TRUST))[0] == ("not-linked", 26, 30)


def test_a_second_event_with_a_number_is_named_and_the_services_one_is_still_found() -> None:
    forged = altered(WHOLE[22], lambda value: value.update(message="another"))
    report = verify_stream([*WHOLE[:23], forged, *WHOLE[23:]], [HEAD], TRUST)
    assert codes(report) == [("forged", 23, 23)]


def test_events_above_the_head_follow_by_their_links_and_a_forged_number_is_no_gap() -> None:
    assert verify_stream(WHOLE, [head(WHOLE, 20)], TRUST).last == 30
    far = seal(event(9), 2**53 - 1, checksum_of(b"x"))
    report = verify_stream([*WHOLE, far], [HEAD], TRUST)
    assert codes(report) == [("not-linked", 2**53 - 1, 2**53 - 1)]
    assert report.last == 30
    assert codes(verify_stream([*WHOLE[:22], *WHOLE[24:]], [head(WHOLE, 20)], TRUST)) == [("not-linked", 25, 30)]


def test_an_event_that_a_running_service_has_not_signed_is_not_its_own() -> None:
    verifier = AuditVerifier(TRUST, everything_is_signed=True)
    verifier.add_head(head(WHOLE, 28), "the service")
    for record in WHOLE:
        verifier.add(record)
    assert codes(verifier.report()) == [("unsigned", 29, 30)]


def test_a_head_of_a_strange_key_proves_nothing() -> None:
    stranger = ClientKey.generate(KEY.id)
    report = verify_stream(WHOLE, [head(WHOLE, 30, stranger)], TRUST)

    assert codes(report) == [("head-untrusted", 0, 0)]
    assert report.lines()[0].startswith("head's signature is not valid")
    assert report.head is None


def test_a_changed_head_and_one_of_another_environment_prove_nothing() -> None:
    payload = dsse.decode_base64(HEAD.payload, "payload").replace(b'"sequence":30', b'"sequence":20')
    forged = dsse.sign_ed25519(payload, HEAD.payloadType, KEY.id, KEY.private_key)
    changed = forged.model_copy(update={"signatures": HEAD.signatures})
    for bad in (changed, forged, head(WHOLE, 30, environment="staging")):
        assert [code for code, *_ in codes(verify_stream(WHOLE, [bad], TRUST))] == ["head-untrusted"]


def test_an_older_head_hides_nothing_from_a_newer_one() -> None:
    older, newer = head(WHOLE, 20, time=NOW - timedelta(days=1)), HEAD
    cut = WHOLE[:20]
    assert verify_stream(cut, [older], TRUST).complete  # what the attack counts on
    assert codes(verify_stream(cut, [newer, older], TRUST)) == [("newest-missing", 21, 30)]


def test_two_signed_heads_that_contradict_each_other_are_named() -> None:
    other = stream(30, fork=True)
    for contradicting, sequence in ((head(other, 30), 30), (head(other, 20), 20)):
        report = verify_stream(WHOLE, [contradicting, HEAD], TRUST)
        assert ("heads-differ", sequence, sequence) in codes(report)


def test_events_of_another_environment_and_without_a_number_are_counted_and_not_judged() -> None:
    foreign = altered(WHOLE[3], lambda value: value["unmapped"].update(environment="staging"))
    report = verify_stream([event(1).encode(), b"rubbish", b"[1]", foreign, *WHOLE], [HEAD], TRUST)
    assert report.complete
    assert report.unnumbered == 4


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_whatever_an_event_tells_it_gets_a_place_and_reads_as_it_was_written(detail: Any) -> None:
    value = json.loads(event(1))
    value["unmapped"]["detail"] = detail
    sealed = seal(json.dumps(value), 1, None)
    assert dsse.statement_bytes(json.loads(sealed)) == sealed
    assert verify_stream([sealed], [head([sealed], 1)], TRUST).complete


def test_nobodys_details_choose_number_or_link() -> None:
    sealed = json.loads(seal(event(1, previous_event="mine"), 4, checksum_of(b"x")))
    assert (sealed["metadata"]["sequence"], sealed["unmapped"]["previous_event"]) == (4, checksum_of(b"x"))
