"""What a rollback would restore, and whether the board must sign for it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from activities.plan import PlanInput, RollbackPlan, make_plan
from constitution.environment import Environment
from constitution.errors import InvalidRequestError
from constitution.messages import RollbackRequest
from constitution.past import past
from constitution.release import Envelope, Kind, Release, Standing, StandingRecord
from constitution.trust.trust_policy import Thresholds

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SIGNED = Envelope(payloadType="t", payload="", signatures=(Envelope.Signature(keyid="k", sig="s"),))
ENVIRONMENT = Environment(environment="testing", gate="gate")


def checksum(version: str) -> str:
    return "sha256:" + version.replace(".", "").ljust(64, "0")


def release(generation: int, version: str | None, *standings: Standing, **changes: Any) -> Release:
    fields: dict[str, Any] = {
        "environment": "testing",
        "generation": generation,
        "kind": Kind.UPDATE,
        "rings": ("default",),
        "version": version,
        "checksum": None if version is None else checksum(version),
        "previous_generation": generation - 1 or None,
        "rollback_of": None,
        "update_id": f"update-{generation}",
        "event_id": "e",
        "change_request": f"CR-{generation}",
        "reason": "r",
        "effective_at": NOW,
        "approvers": ("alva",),
        "evidence": None,
        "statement": SIGNED,
        "approvals": (SIGNED,),
        "standings": tuple(
            StandingRecord(standing=standing, reason="r", update_id="u", recorded_at=NOW - timedelta(hours=1))
            for standing in standings
        ),
        **changes,
    }
    return Release.model_validate(fields)


def plan(*releases: Release, now: datetime = NOW, **request: Any) -> RollbackPlan:
    return make_plan(
        PlanInput(environment="testing", update_id="u", request=RollbackRequest(reason="r", **request)),
        [past(release) for release in releases],
        environment=ENVIRONMENT,
        thresholds=Thresholds(rollback=2, withdraw=3),
        links={},
        now=now,
    )


CONFIRMED, WITHDRAWN, POISONED = Standing.CONFIRMED, Standing.WITHDRAWN, Standing.POISONED


def test_an_unconfirmed_update_goes_back_to_its_previous_without_asking_again() -> None:
    made = plan(release(1, "1.0.0", CONFIRMED), release(2, "1.1.0"), bad_generation=2)
    assert (made.kind, made.restore_generation, made.version) == (Kind.ROLLBACK, 1, "1.0.0")
    assert (made.needs_quorum, made.quorum, made.standing_for_bad) == (False, 2, WITHDRAWN)


def test_what_was_found_poisoned_stays_so_for_the_run_that_finishes_the_undo() -> None:
    undone = release(3, "1.0.0", kind=Kind.ROLLBACK, rollback_of=2)
    made = plan(release(1, "1.0.0", CONFIRMED), release(2, "1.1.0", POISONED), undone, bad_generation=2)
    assert (made.already, made.done, made.standing_for_bad) == (3, False, POISONED)


def test_a_first_release_is_withdrawn() -> None:
    made = plan(release(1, "1.0.0"), bad_generation=1)
    assert (made.kind, made.checksum, made.needs_quorum, made.quorum) == (Kind.WITHDRAW, None, False, 3)
    assert made.standing_for_bad is WITHDRAWN


def test_an_unconfirmed_update_after_a_withdrawal_is_withdrawn_without_asking_again() -> None:
    releases = (
        release(1, "1.0.0", CONFIRMED),
        release(2, "1.1.0", CONFIRMED, WITHDRAWN),
        release(3, "1.0.0", CONFIRMED, WITHDRAWN, kind=Kind.ROLLBACK, rollback_of=2),
        release(4, None, CONFIRMED, kind=Kind.WITHDRAW, rollback_of=3),
    )
    made = plan(*releases, release(5, "1.2.0"), bad_generation=5)
    assert (made.kind, made.checksum, made.needs_quorum) == (Kind.WITHDRAW, None, False)
    by_hand = plan(*releases, release(5, "1.2.0", CONFIRMED), bad_generation=5)  # people who undo it later decide anew
    assert (by_hand.checksum, by_hand.needs_quorum) == (checksum("1.0.0"), True)
    assert "another target" in by_hand.why_quorum


def test_a_withdrawal_is_not_withdrawn() -> None:
    with pytest.raises(InvalidRequestError) as refused:
        plan(release(1, "1.0.0", WITHDRAWN), release(2, None, CONFIRMED, kind=Kind.WITHDRAW, rollback_of=1))
    assert [issue.code for issue in refused.value.issues] == ["nothing-live"]


def test_the_approvals_authorise_the_way_back_for_72_hours_after_the_verdict() -> None:
    releases = (release(1, "1.0.0", CONFIRMED), release(2, "1.1.0", CONFIRMED))
    verdict = NOW - timedelta(hours=1)
    assert not plan(*releases, now=verdict + timedelta(hours=72)).needs_quorum
    late = plan(*releases, now=verdict + timedelta(hours=72, seconds=1))
    assert late.needs_quorum
    assert "ended at" in late.why_quorum


def test_another_target_than_the_previous_takes_the_quorum() -> None:
    releases = (release(1, "1.0.0", CONFIRMED), release(2, "1.1.0", CONFIRMED), release(3, "1.2.0"))
    assert not plan(*releases).needs_quorum
    made = plan(*releases, to=1)
    assert (made.restore_generation, made.needs_quorum) == (1, True)
    assert made.why_quorum.endswith("this is another target"), "nothing has ended"


def test_a_poisoned_document_is_never_restored() -> None:
    bad_again = release(3, "1.0.0", CONFIRMED, POISONED, kind=Kind.ROLLBACK, rollback_of=2)
    releases = (release(1, "1.0.0", CONFIRMED), release(2, "1.1.0", WITHDRAWN), bad_again)
    made = plan(*releases, release(4, "1.2.0"))
    assert (made.kind, made.checksum) == (Kind.WITHDRAW, None)
    with pytest.raises(InvalidRequestError) as caught:
        plan(*releases, release(4, "1.2.0"), to=1)
    assert [issue.code for issue in caught.value.issues] == ["never-confirmed"]


def test_what_was_undone_already_is_told_and_not_undone_again() -> None:
    undo = release(3, "1.0.0", kind=Kind.ROLLBACK, rollback_of=2)
    made = plan(release(1, "1.0.0", CONFIRMED), release(2, "1.1.0", WITHDRAWN), undo, bad_generation=2)
    assert (made.already, made.restore_generation, made.checksum) == (3, 3, checksum("1.0.0"))


def test_what_undid_it_counts_as_done_after_it_was_undone_itself() -> None:
    """A run that is started again for generation 2 must not wait for generation 3 to be live for ever."""
    found = plan(
        release(1, "1.0.0", Standing.CONFIRMED),
        release(2, "1.1.0", Standing.CONFIRMED, Standing.WITHDRAWN),
        release(3, "1.0.0", Standing.CONFIRMED, Standing.WITHDRAWN, kind=Kind.ROLLBACK, rollback_of=2),
        release(4, None, Standing.CONFIRMED, kind=Kind.WITHDRAW, rollback_of=3),
        bad_generation=2,
    )
    assert found.already == 3
    assert found.done


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"bad_generation": 9}, "unknown-generation"),
        ({"bad_generation": 1}, "not-current"),
        ({"to": 9}, "unknown-generation"),
        ({"to": 2}, "same"),
    ],
)
def test_what_cannot_be_undone_is_refused_with_its_reason(request_: dict[str, int], code: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        plan(release(1, "1.0.0", CONFIRMED), release(2, "1.1.0"), now=NOW, **request_)
    assert [issue.code for issue in caught.value.issues] == [code]


def test_nothing_to_undo_is_an_error_by_hand_and_an_answer_to_a_parent() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        plan()
    assert [issue.code for issue in caught.value.issues] == ["nothing-live"]
    made = plan(release(1, "1.0.0", CONFIRMED), update_id="00000000-0000-4000-8000-0000000000ff")
    assert (made.bad_generation, made.needs_quorum) == (None, False)


def test_a_withdraw_restores_nothing_whatever_was_confirmed_and_takes_its_own_quorum() -> None:
    made = plan(release(1, "1.0.0", CONFIRMED), release(2, "1.1.0", CONFIRMED), withdraw=True)
    assert (made.kind, made.bad_generation, made.restore_generation, made.checksum) == (Kind.WITHDRAW, 2, None, None)
    assert (made.needs_quorum, made.quorum, made.needs_order) == (True, 3, False)
    unconfirmed = plan(release(1, "1.0.0", CONFIRMED), release(2, "1.1.0"), bad_generation=2, withdraw=True)
    assert (unconfirmed.kind, unconfirmed.needs_quorum) == (Kind.WITHDRAW, True)


def test_a_first_release_is_withdrawn_by_the_approvals_that_it_came_with() -> None:
    made = plan(release(1, "1.0.0", CONFIRMED, previous_generation=None), withdraw=True)
    assert (made.kind, made.needs_quorum, made.needs_order) == (Kind.WITHDRAW, False, True)


@pytest.mark.parametrize(
    ("live", "request_", "code"),
    [
        ((release(1, "1.0.0", CONFIRMED), release(2, None, kind=Kind.WITHDRAW)), {}, "nothing-live"),
        ((release(1, "1.0.0", CONFIRMED), release(2, "1.1.0")), {"bad_generation": 1}, "not-current"),
        ((), {}, "nothing-live"),
    ],
)
def test_what_is_not_live_is_not_withdrawn(live: tuple[Release, ...], request_: dict[str, Any], code: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        plan(*live, withdraw=True, **request_)
    assert [issue.code for issue in caught.value.issues] == [code]


def test_a_request_restores_one_or_none() -> None:
    with pytest.raises(ValueError, match="give one of them"):
        RollbackRequest(reason="r", to=1, withdraw=True)
