"""What follows from attested watches: every one that ran to its end binds, and a person answers the one they saw."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from constitution.checksum import checksum_of
from constitution.environment import Action, Strategy
from constitution.errors import EvidenceError
from constitution.release import Standing, Verdict
from constitution.trust.attestation import WatchPredicate
from constitution.trust.watch_rules import confirming, counting, deciding, undone_standing
from tests.unit.keyring import NOW
from tests.unit.test_attestations import live, plan, watch

OK, ANOMALY, NO_DATA, CANNOT_TELL = Verdict.OK, Verdict.ANOMALY, Verdict.NO_DATA, Verdict.CANNOT_TELL


def watched(verdict: Verdict, seconds: float, **changes: Any) -> WatchPredicate:
    """A watch that looked so long; the strategy says 60 s. Its evidence is named by what it saw."""
    evidence = checksum_of(f"{verdict} {seconds}".encode())
    return watch(verdict=verdict, ends_at=NOW + timedelta(seconds=seconds), evidence=evidence, **changes)


def judged(
    watches: Sequence[WatchPredicate], *, answered: Sequence[WatchPredicate] = (), **strategy: Action
) -> Verdict | str:
    """The verdict by which it is confirmed, or why it is not."""
    signed = plan(**strategy)
    same = [said.model_copy(update={"strategy": signed.watch}) for said in watches]
    names = {said.evidence for said in answered}
    try:
        return confirming(same, live(), signed, until=None, answered=names)
    except EvidenceError as error:
        return error.message


def test_an_anomaly_decides_whatever_was_seen_before_or_after_it() -> None:
    longer, anomaly = watched(OK, 120), watched(ANOMALY, 30)
    assert deciding([]) is None
    assert deciding([watched(OK, 60), longer]) == deciding([longer, watched(OK, 60)]) == longer
    assert deciding([longer, anomaly, watched(OK, 60)]) == anomaly


def test_an_undone_release_is_poisoned_by_an_anomaly_alone() -> None:
    assert undone_standing([]) is Standing.WITHDRAWN
    assert undone_standing([watched(OK, 60), watched(NO_DATA, 120)]) is Standing.WITHDRAWN
    assert undone_standing([watched(ANOMALY, 30), watched(OK, 120)]) is Standing.POISONED


def test_an_anomaly_of_later_traffic_counts_no_more_and_none_of_another_release_ever() -> None:
    late = watched(ANOMALY, 60, decided_at=NOW + timedelta(seconds=50))
    for until, counts in ((None, True), (NOW + timedelta(seconds=50), True), (NOW + timedelta(seconds=49), False)):
        assert bool(counting([late], live(), plan(), until=until)) is counts
    assert counting([watched(OK, 60)], live(), plan(), until=NOW) != ()  # what saw nothing goes on saying so
    assert counting([late.model_copy(update={"generation": 6})], live(), plan(), until=None) == ()
    other = late.model_copy(update={"strategy": Strategy(watch_seconds=30)})
    assert counting([other], live(), plan(), until=None) == ()
    assert counting([other], live(), None, until=None) == (other,)  # nothing says any more how it was to be watched


def test_a_watch_confirms_when_it_ran_to_its_strategys_end() -> None:
    assert judged([watched(OK, 60)]) is OK
    assert "no assessor has signed" in str(judged([]))
    assert "before its strategy's end" in str(judged([watched(OK, 30)]))
    assert judged([watched(CANNOT_TELL, 60)], on_cannot_tell="continue") is CANNOT_TELL
    assert judged([watched(ANOMALY, 30)], on_anomaly="continue") is ANOMALY


@pytest.mark.parametrize("longer", [[], [watched(OK, 61)], [watched(OK, 120)]])
def test_a_longer_watch_does_not_outvote_a_whole_one(longer: list[WatchPredicate]) -> None:
    assert "no_data, which its strategy rolls back" in str(judged([watched(NO_DATA, 60), *longer]))
    assert "cannot_tell, and nobody has resumed it" in str(judged([watched(CANNOT_TELL, 60), *longer]))
    assert "anomaly, which its strategy rolls back" in str(judged([watched(ANOMALY, 60), *longer]))


def test_a_resume_answers_the_watch_that_it_names_and_none_that_looked_longer_or_saw_more() -> None:
    first, longer, anomaly = watched(CANNOT_TELL, 60), watched(CANNOT_TELL, 90), watched(ANOMALY, 90)
    assert judged([first], answered=[first]) is CANNOT_TELL
    assert judged([first, longer], answered=[longer]) is CANNOT_TELL
    assert "nobody has resumed it" in str(judged([first, longer], answered=[first]))
    assert "nobody has resumed it" in str(judged([first, anomaly], answered=[first], on_anomaly="hold"))
    assert judged([first, anomaly], answered=[anomaly], on_anomaly="hold") is ANOMALY
    # What ended before the strategy's end is no watch that a person could answer; nor is one that was never signed.
    short = watched(CANNOT_TELL, 30)
    assert "nobody has resumed it" in str(judged([first, short], answered=[short]))
    assert "nobody has resumed it" in str(judged([first], answered=[longer]))


def test_no_order_to_resume_stands_against_a_rollback_of_the_strategy() -> None:
    for said in (watched(NO_DATA, 60), watched(ANOMALY, 60)):
        assert "which its strategy rolls back" in str(judged([said], answered=[said]))


def test_a_strategy_that_watches_once_more_takes_the_longer_watch_and_holds_after_it() -> None:
    short, middle, whole = watched(CANNOT_TELL, 60), watched(OK, 90), watched(CANNOT_TELL, 120)

    def once(watches: Sequence[WatchPredicate], *answered: WatchPredicate) -> str:
        return str(judged(watches, answered=answered, on_cannot_tell="extend_once"))

    assert "watches as long again" in once([short])
    assert "watches as long again" in once([short], short)
    assert "watches as long again" in once([short, middle])
    assert once([short, watched(OK, 120)]) == "ok"
    assert "nobody has resumed it" in once([short, whole])
    assert once([short, whole], whole) == "cannot_tell"
    assert judged([watched(NO_DATA, 60), watched(OK, 120)], on_no_data="extend_once") is OK
