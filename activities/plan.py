"""What a rollback would do: which release it undoes, what it restores, and who must sign for it. Pure; no I/O."""

from collections.abc import Sequence
from datetime import datetime

from activities.history import Past
from constitution.approval_rules import PREAUTHORISED_FOR
from constitution.checksum import Checksum
from constitution.environment import Deadlines, Environment
from constitution.errors import InvalidRequestError, Issue
from constitution.messages import RollbackRequest
from constitution.model import Model
from constitution.release import Kind, Standing, Verdict
from constitution.trust import Thresholds


class PlanInput(Model):
    """What to undo, as asked."""

    environment: str
    update_id: str
    request: RollbackRequest


class RollbackPlan(Model):
    """What a rollback will do.

    Args:
        bad_generation: the release to undo; null: this update published nothing, so there is nothing to undo.
        restore_generation: the confirmed release whose artifact is restored; null with kind ``withdraw``.
        already: generation of the release that undid it already.
        done: that release was confirmed: only its records can be missing.
        needs_quorum: no approval pre-authorises it: ``quorum`` board members must sign.
        standing_for_bad: ``poisoned`` after an anomaly, or where an earlier run said so already; else ``withdrawn``.
    """

    environment: str
    update_id: str
    kind: Kind
    bad_generation: int | None
    bad_version: str | None
    bad_checksum: Checksum | None
    restore_generation: int | None
    version: str | None
    checksum: Checksum | None
    rings: tuple[str, ...]
    expected_generation: int
    already: int | None
    done: bool
    needs_quorum: bool
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
    bad = _bad(x.request, releases)
    target: Past | None = None
    pre_authorised = already = None
    if bad is not None:
        already = max((r.generation for r in releases if r.rollback_of == bad.generation), default=None)
        target = _target(x.request, bad, releases, already)
        pre_authorised = _pre_authorised(bad, target, releases, now)
    kind = Kind.WITHDRAW if bad is not None and target is None else Kind.ROLLBACK
    bad_name = _name(bad)
    poisoned = x.request.verdict is Verdict.ANOMALY or (bad is not None and bad.standing is Standing.POISONED)
    return RollbackPlan(
        environment=x.environment,
        update_id=x.update_id,
        kind=kind,
        bad_generation=bad.generation if bad else None,
        bad_version=bad.version if bad else None,
        bad_checksum=bad.checksum if bad else None,
        restore_generation=target.generation if target else None,
        version=target.version if target else None,
        checksum=target.checksum if target else None,
        rings=bad.rings if bad else environment.rings(),
        expected_generation=releases[-1].generation if releases else 0,
        already=already,
        # Ever confirmed: what undid it may have been undone itself since, and is then never live again.
        done=any(
            r.generation == already and any(s.standing is Standing.CONFIRMED for s in r.standings) for r in releases
        ),
        needs_quorum=bad is not None and already is None and not pre_authorised,
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


def _refused(code: str, path: str, message: str) -> InvalidRequestError:
    return InvalidRequestError(
        "this rollback cannot be planned",
        issues=(Issue(code=code, path=path, message=message),),
        hint="constitution releases lists generations and their standing",
    )


def _bad(request: RollbackRequest, releases: Sequence[Past]) -> Past | None:
    """Return the release to undo; None: the update that asks (by its parent) never published."""
    if request.bad_generation is not None:
        found = next((r for r in releases if r.generation == request.bad_generation), None)
        if found is None:
            raise _refused("unknown-generation", "/bad_generation", f"there is no generation {request.bad_generation}")
        return found
    if request.update_id is not None:
        return next((r for r in reversed(releases) if r.update_id == request.update_id and r.rollback_of is None), None)
    if not releases:
        raise _refused("nothing-live", "/bad_generation", "nothing has ever been released here")
    return releases[-1]


def _target(request: RollbackRequest, bad: Past, releases: Sequence[Past], already: int | None) -> Past | None:
    """Return the confirmed release whose artifact is restored; None: withdraw."""
    newest = releases[-1]
    if already is not None:  # what was restored then, whatever was asked for now
        return next((r for r in releases if r.generation == already and r.checksum is not None), None)
    if newest.generation != bad.generation:
        said = f"generation {newest.generation} is current, not {bad.generation}: it has been replaced already"
        raise _refused("not-current", "/bad_generation", said)
    poisoned = {r.checksum for r in releases for s in r.standings if s.standing is Standing.POISONED}
    ever = {r.checksum for r in releases for s in r.standings if s.standing is Standing.CONFIRMED}
    ever -= poisoned | {None, bad.checksum}
    confirmed = {r.checksum for r in releases if r.standing is Standing.CONFIRMED} & ever
    if request.to is not None:
        chosen = next((r for r in releases if r.generation == request.to), None)
        if chosen is None:
            raise _refused("unknown-generation", "/to", f"there is no generation {request.to}")
        if chosen.checksum == bad.checksum:
            raise _refused("same", "/to", f"generation {request.to} is the very document that is live")
        if chosen.checksum not in ever:
            raise _refused(
                "never-confirmed", "/to", f"generation {request.to} was not confirmed, or was found bad since"
            )
        return chosen
    if bad.kind is Kind.UPDATE and not _was_live_before(bad, releases) and not _was_confirmed(bad):
        return None  # after a withdrawal: the board said yes to going back to nothing, not to what was withdrawn
    before = [r for r in releases if r.generation < bad.generation and r.checksum in confirmed]
    if bad.checksum is None and not before:
        raise _refused("nothing-live", "/bad_generation", "nothing is live, and there is nothing to restore")
    return before[-1] if before else None


def _was_live_before(bad: Past, releases: Sequence[Past]) -> bool:
    """Say whether a document was live when this release replaced it."""
    return any(r.generation == bad.previous_generation and r.checksum is not None for r in releases)


def _was_confirmed(release: Past) -> bool:
    return any(s.standing is Standing.CONFIRMED for s in release.standings)


def _pre_authorised(bad: Past, target: Past | None, releases: Sequence[Past], now: datetime) -> bool:
    """Say whether the approvals of the bad release cover its undo: exactly back to its previous, and in time."""
    if bad.kind is not Kind.UPDATE or not bad.is_approved:
        return False
    previous = next((r.checksum for r in releases if r.generation == bad.previous_generation), None)
    if (target.checksum if target else None) != previous:
        return False
    verdicts = [s.recorded_at for s in bad.standings if s.standing is Standing.CONFIRMED]
    if not verdicts:
        return True
    later = any(
        s.standing is Standing.CONFIRMED for r in releases if r.generation > bad.generation for s in r.standings
    )
    return not later and now <= verdicts[-1] + PREAUTHORISED_FOR
