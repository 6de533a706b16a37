"""The plan of a rollback run (rules: ``constitution.rollback_plan``). Pure; no I/O."""

from collections.abc import Sequence
from datetime import datetime

from constitution.checksum import Checksum
from constitution.environment import Deadlines, Environment
from constitution.messages import RollbackRequest
from constitution.model import Model
from constitution.past import Past
from constitution.release import Kind, Standing
from constitution.rollback_plan import bad_release, rollback_target, undone_by, why_not_preauthorised
from constitution.trust.trust_policy import Thresholds


class PlanInput(Model):
    """The release to undo, as asked."""

    environment: str
    update_id: str
    request: RollbackRequest


class RollbackPlan(Model):
    """The plan of a rollback.

    Args:
        bad_generation: the release to undo; null: this update published nothing, so there is nothing to undo.
        restore_generation: the confirmed release whose artifact is restored; null with kind ``withdraw``.
        already: generation of the release that undid it already.
        done: that release was confirmed: only its records can be missing.
        needs_quorum: no approval pre-authorises it: ``quorum`` board members must sign.
        needs_order: by hand, an operator must order it: no quorum is asked, and it is not overdue.
        why_quorum: why none does, in words; empty where one does.
        standing_for_bad: ``poisoned`` where an earlier run said so already; else ``withdrawn``, which
            the evidence of an anomaly makes ``poisoned`` when it is recorded.
    """

    environment: str
    update_id: str
    kind: Kind
    bad_generation: int | None
    bad_version: str | None
    bad_checksum: Checksum | None
    bad_update_id: str = ""
    restore_generation: int | None
    version: str | None
    checksum: Checksum | None
    rings: tuple[str, ...]
    expected_generation: int
    already: int | None
    done: bool
    needs_quorum: bool
    why_quorum: str = ""
    needs_order: bool = False
    quorum: int
    change_request: str | None
    summary: str
    approvers: tuple[str, ...]
    channel: str
    deadlines: Deadlines
    links: dict[str, str]
    standing_for_bad: Standing


def make_plan(
    x: PlanInput,
    releases: Sequence[Past],
    *,
    environment: Environment,
    thresholds: Thresholds,
    links: dict[str, str],
    now: datetime,
) -> RollbackPlan:
    """Return the plan.

    Args:
        x: what is asked for.
        releases: all of the environment, lowest generation first.
        environment: for channel and deadlines.
        thresholds: of the trust policy.
        links: for people.
        now: aware.

    Raises:
        InvalidRequestError: with every problem found.
    """
    bad = bad_release(x.request, releases)
    target: Past | None = None
    already, why_quorum = None, ""
    if bad is not None:
        already = undone_by(bad, releases)
        target = rollback_target(x.request, bad, releases, already)
        why_quorum = why_not_preauthorised(bad, target, releases, now)
    kind = Kind.WITHDRAW if bad is not None and target is None else Kind.ROLLBACK
    needs_quorum = bad is not None and already is None and bool(why_quorum)
    bad_name = _name(bad)
    poisoned = bad is not None and bad.standing is Standing.POISONED
    return RollbackPlan(
        environment=x.environment,
        update_id=x.update_id,
        kind=kind,
        bad_generation=bad.generation if bad else None,
        bad_version=bad.version if bad else None,
        bad_checksum=bad.checksum if bad else None,
        bad_update_id=bad.update_id if bad else "",
        restore_generation=target.generation if target else None,
        version=target.version if target else None,
        checksum=target.checksum if target else None,
        rings=bad.rings if bad else environment.rings(),
        expected_generation=releases[-1].generation if releases else 0,
        already=already,
        # Ever confirmed: the undoing release may have been undone itself since, and is then never live again.
        done=any(
            r.generation == already and any(s.standing is Standing.CONFIRMED for s in r.standings) for r in releases
        ),
        needs_quorum=needs_quorum,
        needs_order=bad is not None and already is None and not needs_quorum,
        why_quorum=why_quorum,
        quorum=thresholds.withdraw if kind is Kind.WITHDRAW else thresholds.rollback,
        change_request=bad.change_request if bad else None,
        summary=f"takes {bad_name} back"
        + (f" and restores {_name(target)}" if target else ", leaving no constitution"),
        approvers=bad.approvers if bad else (),
        channel=environment.channel,
        deadlines=environment.deadlines,
        links=links,
        standing_for_bad=Standing.POISONED if poisoned else Standing.WITHDRAWN,
    )


def _name(release: Past | None) -> str:
    if release is None:
        return "nothing"
    return f"{release.version or 'the withdrawal'} (generation {release.generation})"
