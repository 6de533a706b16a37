"""Reading a constitution: everything that breaks it is refused by one error, with all problems."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitution.errors import MAX_ISSUES, InvalidDocumentError, InvalidRequestError
from constitution.policy.document import Constitution, parse, schema
from tests.unit.keyring import document, rule


def encoded(**changes: Any) -> bytes:
    return json.dumps(document(**changes)).encode()


def codes(data: bytes) -> set[tuple[str, str]]:
    with pytest.raises(InvalidDocumentError) as caught:
        parse(data)
    assert caught.value.issues
    return {(issue.path, issue.code) for issue in caught.value.issues}


def test_a_valid_document_is_read() -> None:
    read = parse(encoded())
    assert isinstance(read, Constitution)
    assert read.version == "1.0.0"
    assert read.rules[0].when == 'tool == "x"'


def test_every_problem_is_listed_at_once() -> None:
    data = encoded(
        version="1.0",
        surprise=1,
        default_effect="perhaps",
        rules=[
            rule("a", "deny", "amount > 1"),
            rule("a", "maybe", "nope"),
            {**rule("b", "deny", "true"), "principle": "q"},
        ],
    )
    assert {
        ("", "schema-additionalProperties"),
        ("/version", "schema-pattern"),
        ("/default_effect", "schema-enum"),
        ("/rules", "duplicate-id"),
        ("/rules/0/when", "cel-compile"),
        ("/rules/1/effect", "schema-enum"),
        ("/rules/1/when", "cel-compile"),
        ("/rules/2/principle", "unknown-principle"),
    } <= codes(data)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "not-json"),
        (b"\xff\xfe", "not-utf-8"),
        (b"\xef\xbb\xbf{}", "not-json"),
        (b"[" * 65 + b"]" * 65, "too-deep"),
        (b"[" * 100_000, "too-deep"),
        (b" " * (1024 * 1024 + 1), "too-large"),
        (b'{"a": 1, "a": 1}', "duplicate-key"),
        (b'{"a": NaN}', "not-json"),
        (b'{"a": 1e999}', "number-range"),
        (b'{"a": ' + b"1" * 5000 + b"}", "number-range"),
        (b'{"a": "\\ud800"}', "lone-surrogate"),
        (b"null", "schema-type"),
        (b"[]", "schema-type"),
        (b'{"schema_version": 2}', "schema-version"),
    ],
)
def test_bytes_that_are_no_document_are_refused(data: bytes, code: str) -> None:
    assert code in {found for _, found in codes(data)}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"title": "two\nlines"}, ("/title", "schema-pattern")),
        ({"environment": "dev\n"}, ("/environment", "string_pattern_mismatch")),
        ({"issued_at": "2026-01-01T00:00:00"}, ("/issued_at", "schema-pattern")),
        ({"issued_at": "2026-02-30T00:00:00Z"}, ("/issued_at", "datetime_from_date_parsing")),
        ({"schema_version": "1"}, ("/schema_version", "schema-type")),
        ({"schema_version": True}, ("/schema_version", "schema-type")),
        ({"expires_at": "2020-01-01T00:00:00Z"}, ("/expires_at", "date-order")),
        ({"effective_at": "2099-01-01T00:00:00Z"}, ("/expires_at", "date-order")),
        ({"previous": {"version": "1.0.0", "checksum": "sha256:" + "0" * 64}}, ("/version", "version-order")),
        ({"previous": {"version": "0.9.0", "checksum": "sha256:" + "0" * 63}}, ("/previous", "schema-oneOf")),
        ({"rules": []}, ("/rules", "schema-minItems")),
    ],
)
def test_fields_are_held_to_the_schema(changes: dict[str, Any], problem: tuple[str, str]) -> None:
    found = codes(encoded(**changes))
    assert problem[0] in {path for path, _ in found}
    assert problem in found or problem[1].startswith("datetime")


@pytest.mark.parametrize(
    ("when", "code"),
    [
        ("tool", "cel-type"),
        ("dyn(tool)", "cel-type"),
        ("nobody == 1", "cel-compile"),
        ("[1].all(x, [2].all(y, x == y))", "cel-nested-macro"),
        ("[[1].map(x, x)].all(y, y.size() == 1)", "cel-nested-macro"),
        ("tool in [" + ",".join(["'a'"] * 257) + "]", "cel-list-too-long"),
        ("prompt.matches(user)", "cel-pattern"),
        ("prompt.matches('(?=a)')", "cel-pattern"),
        ("['a', 'b'].exists(x, prompt.matches('(.{1,200}){1,4}x'))", "cel-pattern-in-macro"),
        ("[prompt, tool].exists(x, x.matches('a'))", "cel-pattern-in-macro"),
        (" || ".join(["prompt.matches('a')"] * 9), "cel-patterns"),
        ("['a', 'b'].map(x, x + prompt).size() > 1", "cel-join"),
        ("amount > 1.0" + " " * 4090, "schema-maxLength"),
        ("(" * 40 + "true" + ")" * 40, "cel-compile"),
    ],
)
def test_rules_stay_within_the_limits(when: str, code: str) -> None:
    assert code in {found for _, found in codes(encoded(rules=[rule("a", "deny", when)]))}


def test_the_longest_list_allowed_is_read() -> None:
    when = "tool in [" + ",".join(["'a'"] * 256) + "]"
    assert parse(encoded(rules=[rule("a", "deny", when)])).rules[0].when == when


@pytest.mark.parametrize("name", ["rules", "principles"])
@pytest.mark.parametrize("item", [b"{}", b"1", b'{"a":1}'])
def test_a_megabyte_of_problems_is_not_looked_for_to_its_end(name: str, item: bytes) -> None:
    items = b",".join([item] * (1_000_000 // (len(item) + 1)))
    with pytest.raises(InvalidDocumentError, match="more than 100 problems") as caught:  # all of them: 20 s to 108 s
        parse(b'{"' + name.encode() + b'":[' + items + b"]}")
    assert len(caught.value.issues) == MAX_ISSUES + 1
    assert caught.value.issues[-1].code == "more"


def test_issues_are_capped() -> None:
    with pytest.raises(InvalidDocumentError) as caught:
        parse(encoded(rules=[{"id": 1} for _ in range(400)]))
    assert len(caught.value.issues) == 101
    assert caught.value.issues[-1].code == "more"


def test_schema_is_given_by_version() -> None:
    assert schema(1)["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    with pytest.raises(InvalidRequestError):
        schema(2)


@given(st.binary(max_size=2000))
def test_arbitrary_bytes_only_ever_raise_the_one_error(data: bytes) -> None:
    with pytest.raises(InvalidDocumentError):
        parse(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from([*document(), "effective_at", "x"]), JSON, min_size=1))
def test_arbitrary_fields_only_ever_raise_the_one_error(changes: dict[str, Any]) -> None:
    data = json.dumps(document(**changes)).encode()
    try:
        parse(data)
    except InvalidDocumentError as error:
        assert error.issues  # noqa: PT017 - either outcome is fine; nothing else may be raised


@given(st.text(max_size=200))
def test_arbitrary_rules_only_ever_raise_the_one_error(when: str) -> None:
    try:
        parse(encoded(rules=[rule("a", "deny", when)]))
    except InvalidDocumentError as error:
        assert error.issues  # noqa: PT017 - either outcome is fine; nothing else may be raised


@given(st.data())
def test_one_changed_byte_never_breaks_the_reader(data: st.DataObject) -> None:
    original = bytearray(encoded())
    position = data.draw(st.integers(0, len(original) - 1))
    original[position] = data.draw(st.integers(0, 255))
    try:
        parse(bytes(original))
    except InvalidDocumentError as error:
        assert error.issues  # noqa: PT017 - either outcome is fine; nothing else may be raised
