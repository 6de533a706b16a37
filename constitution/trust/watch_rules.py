"""What follows from the watches that assessors signed: may a release be confirmed, and is an undone one poisoned?

An attestation says what was seen. What follows from it is judged here and nowhere else; constitution-service acts on
it.
"""

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta

from constitution.errors import EvidenceError, Issue
from constitution.release import Release, Standing, Verdict
from constitution.trust.attestation import WatchPredicate
from constitution.trust.plan import Plan

ENDS_EARLY = timedelta(seconds=1)
"""So much earlier than the strategy says may a watch have ended: times in evidence are rounded."""


def counting(
    watches: Iterable[WatchPredicate], release: Release, plan: Plan | None, *, until: datetime | None
) -> tuple[WatchPredicate, ...]:
    """Return the watches that count: as the board signed them, of what this release and no other did to the traffic.

    Args:
        watches: what was attested.
        release: about which.
        plan: as the board signed it; None: nothing says it any more.
        until: when the release was confirmed or replaced: an anomaly that was decided later says nothing about it.
    """
    return tuple(
        said
        for said in watches
        if not said.problems(release, plan)
        and (said.verdict is not Verdict.ANOMALY or until is None or said.decided_at <= until)
    )


def deciding(watches: Iterable[WatchPredicate]) -> WatchPredicate | None:
    """Return the watch that decides: one that saw an anomaly, else the one that looked longest; None of none."""
    return max(watches, key=_weight, default=None)


def undone_standing(watches: Iterable[WatchPredicate]) -> Standing:
    """Return what becomes of a release that was undone: ``poisoned`` by an anomaly that counts, else ``withdrawn``."""
    decided = deciding(watches)
    return Standing.POISONED if decided is not None and decided.verdict is Verdict.ANOMALY else Standing.WITHDRAWN


def confirming(
    attested: Iterable[WatchPredicate],
    release: Release,
    plan: Plan,
    *,
    until: datetime | None,
    answered: Collection[str],
) -> Verdict:
    """Return the verdict by which a release is confirmed, as the strategy says that the board signed.

    Every watch that ran to its end binds. Whoever has activities run chooses how long a watch looks: a longer one does
    not outvote a whole one that is rolled back, and none replaces the person for whom the strategy holds the release.

    Args:
        attested: every watch that an assessor signed.
        release: which.
        plan: as the board signed it.
        until: as for ``counting``.
        answered: digests of the evidence of watches that a person has resumed. Who answers a watch has seen the
            shorter ones, too; an anomaly, or a longer watch, takes another answer.

    Raises:
        EvidenceError: it may not be confirmed, and why.
    """
    attested = tuple(attested)
    watches = counting(attested, release, plan, until=until)
    decided = deciding(watches)
    if decided is None:
        raise EvidenceError(
            f"no assessor has signed that it watched generation {release.generation} as the board wished",
            issues=[Issue(code="watch", message=why) for said in attested for why in said.problems(release, plan)],
        )
    length = timedelta(seconds=plan.watch.watch_seconds)
    least, longest = release.effective_at + length - ENDS_EARLY, release.effective_at + 2 * length - ENDS_EARLY
    whole = [said for said in watches if said.verdict is Verdict.ANOMALY or said.ends_at >= least]
    if not whole:
        raise EvidenceError(f"this watch ended at {decided.ends_at}, before its strategy's end at {least}")
    resumed = max((_weight(said) for said in whole if said.evidence in answered), default=None)
    extended = any(said.ends_at >= longest for said in whole)
    for said in whole:
        says = f"the watch says {said.verdict.value}"
        match plan.watch.action(said.verdict, extended=said.ends_at >= longest):
            case "rollback":
                raise EvidenceError(f"{says}, which its strategy rolls back")
            case "extend_once" if not extended:
                raise EvidenceError(f"{says}, and its strategy watches as long again then")
            case "hold" if resumed is None or resumed < _weight(said):
                raise EvidenceError(
                    f"{says}, and nobody has resumed it",
                    issues=[Issue(code="watch", message=f"an order to resume names evidence {said.evidence}")],
                )
            case _:
                continue
    return decided.verdict


def _weight(said: WatchPredicate) -> tuple[bool, datetime]:
    return said.verdict is Verdict.ANOMALY, said.ends_at
