import base64
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.kafka_consumer import ConsumedMessage
from services.siem_forwarder.ocsf_schema import OcsfSchema
from services.siem_forwarder.quarantine import MAX_RAW_BYTES, finding

SCHEMA = OcsfSchema()


def record(value: bytes | None, **changes: object) -> ConsumedMessage:
    fields: dict[str, object] = {
        "topic": "constitution.updated",
        "partition": 0,
        "offset": 41,
        "key": b"global",
        "value": value,
        "headers": (("ce_id", b"x"),),
        "timestamp_ms": 1_795_000_000_000,
    }
    return ConsumedMessage(**{**fields, **changes})  # type: ignore[arg-type]


class TestFinding:
    def test_is_valid_ocsf_and_carries_the_exact_bytes(self) -> None:
        event = finding(record(b"\xff\x00{hostile"), "not UTF-8")
        assert SCHEMA.problems(event) == ()
        assert base64.b64decode(event["raw_data"]) == b"\xff\x00{hostile"
        assert event["metadata"]["uid"] == "quarantine:constitution.updated:0:41"

    def test_bounds_a_large_record_and_names_the_whole(self) -> None:
        value = b"a" * (MAX_RAW_BYTES + 1)
        event = finding(record(value), "too large")
        assert len(base64.b64decode(event["raw_data"])) == MAX_RAW_BYTES
        assert event["metadata"]["is_truncated"] is True
        assert event["metadata"]["untruncated_size"] == len(value)
        assert event["raw_data_hash"]["value"] == hashlib.sha256(value).hexdigest()

    def test_uid_is_the_place_not_the_content(self) -> None:
        first, second = finding(record(b"a"), "one"), finding(record(b"b"), "two")
        assert first["metadata"]["uid"] == second["metadata"]["uid"]
        assert finding(record(b"a", offset=42), "one")["metadata"]["uid"] != first["metadata"]["uid"]

    @given(
        value=st.none() | st.binary(max_size=300),
        key=st.none() | st.binary(max_size=400),
        headers=st.lists(st.tuples(st.text(max_size=100), st.none() | st.binary(max_size=400)), max_size=40),
        timestamp_ms=st.integers(min_value=-(2**63), max_value=2**63 - 1),
        why=st.text(max_size=3000),
    )
    def test_any_record_gives_a_valid_bounded_event(
        self,
        value: bytes | None,
        key: bytes | None,
        headers: list[tuple[str, bytes | None]],
        timestamp_ms: int,
        why: str,
    ) -> None:
        event = finding(record(value, key=key, headers=tuple(headers), timestamp_ms=timestamp_ms), why)
        assert SCHEMA.problems(event) == ()
        assert len(json.dumps(event)) < 60_000


class TestOcsfSchema:
    @pytest.mark.parametrize(
        ("change", "problem"),
        [
            ({"class_uid": 999999}, "no class 999999"),
            ({"class_uid": "2004"}, "class_uid is missing"),
            ({"class_uid": True}, "class_uid is missing"),
            ({"type_uid": 200402}, "type_uid is not"),
            ({"surprise": 1}, "surprise"),
            ({"time": "now"}, "is not of type 'integer'"),
            ({"metadata": {"version": "1.6.0", "uid": "", "product": {"name": "x"}}}, "uid is missing"),
            ({"metadata": {"version": "1.1.0", "uid": "x", "product": {"name": "x"}}}, "metadata.version is not 1.6.0"),
        ],
    )
    def test_names_what_is_wrong(self, change: dict[str, object], problem: str) -> None:
        event = {**finding(record(b"x"), "why"), **change}
        assert problem in "; ".join(SCHEMA.problems(event))

    @pytest.mark.parametrize("event", [None, 1, "x", [], {}])
    def test_refuses_what_is_no_event(self, event: object) -> None:
        assert SCHEMA.problems(event)
