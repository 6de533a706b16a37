"""Which decisions count: distinct board members, for exactly this, in time; one denial stops."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitution.environment import Strategy
from constitution.errors import NotApprovedError
from constitution.release import Kind, Previous
from constitution.trust.approval import BOARD_ORDERS, OPERATOR_ORDERS, ApprovalPredicate, BoardDecision, OrderPredicate
from constitution.trust.approval_rules import Binding, check_order, count
from constitution.trust.plan import Plan
from tests.unit.keyring import NOW, keyring

CHECKSUM, EVIDENCE = "sha256:" + "a" * 64, "sha256:" + "e" * 64
BEFORE = Previous(version="1.0.0", checksum="sha256:" + "b" * 64)
PLAN = Plan(update_id="11111111-2222-4333-8444-555555555555", strategy="default", watch=Strategy(), rings=("default",))
BINDING = Binding(
    kind=Kind.UPDATE,
    environment="development",
    checksum=CHECKSUM,
    version="1.1.0",
    previous=BEFORE,
    change_request="CR-1",
    evidence=EVIDENCE,
    plan=PLAN,
)


def decision(**changes: Any) -> ApprovalPredicate:
    fields: dict[str, Any] = {
        "kind": Kind.UPDATE,
        "environment": "development",
        "checksum": CHECKSUM,
        "version": "1.1.0",
        "previous": BEFORE,
        "change_request": "CR-1",
        "evidence": EVIDENCE,
        "plan": PLAN,
        "decision": BoardDecision.APPROVE,
        "reason": "looked at it",
        "issued_at": NOW - timedelta(minutes=1),
        "expires_at": NOW + timedelta(days=1),
    }
    return ApprovalPredicate(**{**fields, **changes})


def counted(
    *approvals: tuple[str, ApprovalPredicate], threshold: int = 2, author: str | None = "mara"
) -> tuple[str, ...]:
    return count(approvals, binding=BINDING, trust=keyring().trust, threshold=threshold, author=author, now=NOW)


def refusal(*approvals: tuple[str, ApprovalPredicate], threshold: int = 2, author: str | None = "mara") -> str:
    with pytest.raises(NotApprovedError) as caught:
        counted(*approvals, threshold=threshold, author=author)
    return caught.value.diagnostics()


def test_two_board_members_suffice() -> None:
    assert counted(("chen", decision()), ("alva", decision())) == ("alva", "chen")


def test_one_person_counts_once() -> None:
    said = refusal(("alva", decision()), ("alva", decision(reason="again, by my other key")))
    assert "approved by alva; 1 more of bruno, chen must approve" in said


@given(st.lists(st.sampled_from(["mara", "marc", "alva", "bruno", "chen", "nobody"]), max_size=8), st.integers(1, 3))
def test_the_threshold_is_of_distinct_board_members(people: list[str], threshold: int) -> None:
    valid = {person for person in people if person in {"alva", "bruno", "chen"}}
    approvals = [(person, decision()) for person in people]
    if len(valid) >= threshold:
        assert set(counted(*approvals, threshold=threshold)) == valid
    else:
        assert "must approve" in refusal(*approvals, threshold=threshold)


def test_the_author_cannot_approve() -> None:
    said = refusal(("alva", decision()), ("bruno", decision()), author="alva")
    assert "alva: is the author" in said
    assert "1 more of chen must approve" in said


def test_who_is_not_on_the_board_does_not_count() -> None:
    assert "marc: is no member of the board" in refusal(("marc", decision()), ("alva", decision()))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", Kind.REISSUE),
        ("environment", "production"),
        ("checksum", "sha256:" + "c" * 64),
        ("version", "1.2.0"),
        ("previous", None),
        ("change_request", "CR-2"),
        ("evidence", "sha256:" + "f" * 64),
        ("evidence", None),
        ("plan", None),
        ("plan", PLAN.model_copy(update={"update_id": PLAN.update_id.replace("1", "9")})),
        ("plan", PLAN.model_copy(update={"watch": Strategy(watch_seconds=0)})),
        ("plan", PLAN.model_copy(update={"rings": ("canary",)})),
        ("plan", PLAN.model_copy(update={"not_before": NOW})),
        ("rollback_of", 3),
    ],
)
def test_a_decision_on_something_else_does_not_count(field: str, value: Any) -> None:
    said = refusal(("alva", decision(**{field: value})), ("bruno", decision()))
    assert f"alva: decided on something else: {field}" in said


def test_a_decision_counts_in_its_time_only() -> None:
    assert "expired" in refusal(("alva", decision(expires_at=NOW)), ("bruno", decision()))
    assert "future" in refusal(("alva", decision(issued_at=NOW + timedelta(hours=1))), ("bruno", decision()))
    naive = decision(issued_at=(NOW - timedelta(minutes=1)).replace(tzinfo=None))
    assert "time zone" in refusal(("alva", naive), ("bruno", decision()))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"expires_at": NOW - timedelta(seconds=1)},
        {"evidence": "sha256:" + "f" * 64},
        {"version": None},
        {"plan": None},
    ],
)
def test_one_denial_stops_whatever_the_others_say(changes: dict[str, Any]) -> None:
    denial = ("chen", decision(decision=BoardDecision.DENY, reason="not like this", **changes))
    assert "chen denied: not like this" in refusal(("alva", decision()), ("bruno", decision()), denial)


@pytest.mark.parametrize(
    ("person", "changes"),
    [("marc", {}), ("chen", {"checksum": "sha256:" + "c" * 64}), ("chen", {"change_request": "CR-2"})],
)
def test_a_denial_by_nobody_or_of_something_else_stops_nothing(person: str, changes: dict[str, Any]) -> None:
    denial = (person, decision(decision=BoardDecision.DENY, **changes))
    assert counted(("alva", decision()), ("bruno", decision()), denial) == ("alva", "bruno")


def test_an_undoing_is_bound_by_its_generation() -> None:
    binding = Binding(kind=Kind.WITHDRAW, environment="development", checksum=None, rollback_of=3)
    fields: dict[str, Any] = {
        "kind": Kind.WITHDRAW,
        "checksum": None,
        "version": None,
        "previous": None,
        "plan": None,
        "change_request": None,
        "evidence": None,
    }
    trust = keyring().trust
    good = [("alva", decision(**fields, rollback_of=3)), ("bruno", decision(**fields, rollback_of=3))]
    assert count(good, binding=binding, trust=trust, threshold=2, author=None, now=NOW) == ("alva", "bruno")
    other = [good[0], ("bruno", decision(**fields, rollback_of=4))]
    with pytest.raises(NotApprovedError):
        count(other, binding=binding, trust=trust, threshold=2, author=None, now=NOW)


class TestOrder:
    def order(self, **changes: Any) -> OrderPredicate:
        fields: dict[str, Any] = {
            "environment": "development",
            "workflow_id": "w",
            "update_id": "u",
            "order": "skip",
            "step": "broadcast",
            "reason": "Slack is down",
            "issued_at": NOW,
            "expires_at": NOW + timedelta(hours=1),
        }
        return OrderPredicate(**{**fields, **changes})

    def check(self, person: str, order: OrderPredicate, verb: str = "skip") -> None:
        check_order(
            person,
            order,
            trust=keyring().trust,
            environment="development",
            workflow_id="w",
            update_id="u",
            order=verb,
            step="broadcast",
            now=NOW,
        )

    def test_a_board_members_order_counts(self) -> None:
        self.check("alva", self.order())

    @pytest.mark.parametrize(
        ("person", "changes"),
        [
            ("marc", {}),
            ("alva", {"environment": "production"}),
            ("alva", {"workflow_id": "x"}),
            ("alva", {"update_id": "x"}),
            ("alva", {"order": "promote"}),
            ("alva", {"step": None}),
            ("alva", {"expires_at": NOW}),
            ("alva", {"issued_at": NOW + timedelta(hours=1)}),
        ],
    )
    def test_any_other_does_not(self, person: str, changes: dict[str, Any]) -> None:
        with pytest.raises(NotApprovedError):
            self.check(person, self.order(**changes))

    @pytest.mark.parametrize("verb", sorted(OPERATOR_ORDERS | BOARD_ORDERS))
    def test_each_verb_takes_its_own_role(self, verb: str) -> None:
        may, may_not = ("alva", "olga") if verb in BOARD_ORDERS else ("olga", "alva")
        self.check(may, self.order(order=verb), verb)
        with pytest.raises(NotApprovedError) as refused:
            self.check(may_not, self.order(order=verb), verb)
        assert [issue.path for issue in refused.value.issues] == ["/person"]
