"""What a document says about its own end: expired and stale, by the signed word, and stricter by a setting alone."""

import json
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from constitution.errors import InvalidDocumentError
from constitution.policy.diff import LOOSENED, diff
from constitution.policy.document import Constitution, parse, schema
from constitution.policy.evaluation import Decision, PolicyDecision
from constitution.policy.lapse import STRICTNESS, WARN_DAYS, Caution, Lapse, OnLapse, Terms, days_warned
from constitution.templates import TEMPLATES, template
from tests.unit.keyring import document

END = datetime(2026, 12, 1, tzinfo=UTC)
ENFORCE, APPROVAL, DENY = OnLapse.ENFORCE, OnLapse.REQUIRE_APPROVAL, OnLapse.DENY
MILDNESS = (Decision.ALLOW, Decision.REQUIRE_APPROVAL, Decision.DENY)
actions, moments = some.sampled_from(OnLapse), some.integers(-40 * 86400, 40 * 86400)
terms = some.builds(
    Terms, some.just(END), some.integers(0, 30 * 86400).map(lambda s: timedelta(seconds=s)), actions, actions
)
cautions = some.builds(Caution, actions, actions)


def made(**changes: Any) -> Constitution:
    return parse(json.dumps(document(**changes)).encode())


def holds(said: Terms, caution: Caution, seconds: int, *, stale: bool) -> OnLapse:
    lapse = said.lapse(caution, now=END + timedelta(seconds=seconds), stale=stale)
    return ENFORCE if lapse is None else lapse.action


@pytest.mark.parametrize(
    ("on_expiry", "grace", "after", "expected"),
    [
        (DENY, 0, -1, ENFORCE),
        (DENY, 0, 0, DENY),
        (DENY, 60, 59, ENFORCE),
        (DENY, 60, 60, DENY),
        (APPROVAL, 60, 59, ENFORCE),
        (APPROVAL, 60, 61, APPROVAL),
        (ENFORCE, 0, 10**6, ENFORCE),
    ],
)
def test_what_is_signed_holds_after_the_grace(on_expiry: OnLapse, grace: int, after: int, expected: OnLapse) -> None:
    said = Terms(END, timedelta(seconds=grace), on_expiry, ENFORCE)
    assert holds(said, Caution(), after, stale=False) is expected


@pytest.mark.parametrize(("signed", "setting"), list(product(OnLapse, OnLapse)))
def test_a_setting_is_stricter_or_nothing(signed: OnLapse, setting: OnLapse) -> None:
    said, caution = Terms(END, timedelta(0), signed, signed), Caution(stale=setting, expired=setting)
    expected = max(signed, setting, key=STRICTNESS.index)
    assert holds(said, caution, 1, stale=False) is expected
    assert holds(said, caution, -1, stale=True) is expected
    assert holds(said, caution, -1, stale=False) is ENFORCE


def test_a_stricter_setting_waits_for_no_grace() -> None:
    said = Terms(END, timedelta(days=30), ENFORCE, ENFORCE)
    assert holds(said, Caution(expired=DENY), 0, stale=False) is DENY


@given(said=terms, caution=cautions, seconds=moments, stale=some.booleans())
def test_no_setting_and_no_time_makes_it_milder(said: Terms, caution: Caution, seconds: int, stale: bool) -> None:
    found = STRICTNESS.index(holds(said, caution, seconds, stale=stale))
    assert found >= STRICTNESS.index(holds(said, Caution(), seconds, stale=stale))
    assert found <= STRICTNESS.index(holds(said, caution, seconds + 1, stale=stale))
    assert found >= STRICTNESS.index(holds(said, caution, seconds, stale=False))
    if seconds < 0 and not stale:
        assert found == 0


@given(action=actions, reason=some.sampled_from(("expired", "stale")), decided=some.sampled_from(Decision))
def test_a_decision_becomes_no_milder_and_names_its_reason(action: OnLapse, reason: Any, decided: Decision) -> None:
    before = PolicyDecision(decision=decided, rule="r", severity="low", message="m", errors=2)
    after = Lapse(action, reason).over(before)
    assert MILDNESS.index(after.decision) >= MILDNESS.index(decided)
    assert MILDNESS.index(after.decision) >= STRICTNESS.index(action)
    if after.decision is not decided:
        assert after.reason == reason
    assert Lapse(action, reason).over(after) == after


@pytest.mark.parametrize("name", ["on_expiry", "on_stale"])
@pytest.mark.parametrize("wrong", ["", "DENY", "degrade", "allow", None, 0, 1.5, True, [], {}, ["deny"], "deny "])
def test_an_unknown_action_is_no_document(name: str, wrong: Any) -> None:
    with pytest.raises(InvalidDocumentError) as refused:
        made(**{name: wrong})
    assert {issue.path for issue in refused.value.issues} == {f"/{name}"}


@pytest.mark.parametrize("wrong", [-1, 2592001, 10**30, 1.5, "60", "P3D", None, True, [], {}, float("1e999")])
def test_an_impossible_grace_is_no_document(wrong: Any) -> None:
    with pytest.raises(InvalidDocumentError):
        made(expiry_grace=wrong)


@given(
    some.dictionaries(
        some.sampled_from(("on_expiry", "on_stale", "expiry_grace")),
        some.none() | some.booleans() | some.integers() | some.floats(allow_nan=False) | some.text(max_size=20),
    )
)
def test_whatever_is_written_there_is_a_document_or_refused(changes: dict[str, Any]) -> None:
    try:
        said = made(**changes).terms
    except InvalidDocumentError:
        return
    assert timedelta(0) <= said.grace <= timedelta(days=30)


def test_what_is_not_said_is_the_schemas_default() -> None:
    said, properties = made(), schema()["properties"]
    for name in ("on_expiry", "expiry_grace", "on_stale"):
        assert getattr(said, name) == properties[name]["default"]
    assert (said.on_expiry, said.expiry_grace, said.on_stale) == (DENY, 0, ENFORCE)


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_shipped_template_says_it(name: str) -> None:
    said = json.loads(template(name))
    assert (said["on_expiry"], said["expiry_grace"], said["on_stale"]) == ("deny", 3 * 86400, "enforce")


@pytest.mark.parametrize(("was", "becomes"), list(product(OnLapse, OnLapse)))
@pytest.mark.parametrize("name", ["on_expiry", "on_stale"])
def test_a_diff_marks_what_is_loosened(name: str, was: OnLapse, becomes: OnLapse) -> None:
    lines = diff(made(**{name: was}), made(**{name: becomes}))
    assert len(lines) == (was is not becomes)
    for line in lines:
        assert line.endswith(LOOSENED) is (STRICTNESS.index(becomes) < STRICTNESS.index(was))


def test_a_diff_marks_a_longer_grace_and_tells_a_first_documents_end() -> None:
    assert diff(made(expiry_grace=60), made(expiry_grace=61)) == (f"grace after expiry: 60 s -> 61 s{LOOSENED}",)
    assert diff(made(expiry_grace=61), made(expiry_grace=60)) == ("grace after expiry: 61 s -> 60 s",)
    first = diff(None, made(expiry_grace=60))
    assert "on expiry: deny, 60 s after it has expired" in first
    assert "while nobody confirms that it is live: enforce" in first


@pytest.mark.parametrize(
    ("left", "due"),
    [
        (timedelta(days=31), None),
        (timedelta(days=30), 30),
        (timedelta(days=8), 30),
        (timedelta(days=7), 7),
        (timedelta(days=1), 1),
        (timedelta(seconds=1), 1),
        (timedelta(0), 0),
        (timedelta(days=-9), 0),
    ],
)
def test_warnings_are_due_in_time(left: timedelta, due: int | None) -> None:
    assert days_warned(END, END - left) == due
    assert WARN_DAYS == (30, 7, 1)
