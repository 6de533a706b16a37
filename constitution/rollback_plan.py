"""Which release a rollback undoes, what it restores, and who must sign for it (invariant 5). Pure.

The run and the command line's preview use these same rules, so that a person is shown what will be done.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from constitution.environment import Deadlines
from constitution.errors import InvalidRequestError, Issue
from constitution.messages import RollbackRequest
from constitution.past import Past
from constitution.release import Kind, Standing
from constitution.trust.approval_rules import PREAUTHORISED_FOR


def step_of(generation: int) -> str:
    """Return how a signed order names the release that it is about."""
    return f"generation-{generation}"


def confirm_by(effective_at: datetime, watch_seconds: int, deadlines: Deadlines) -> datetime:
    """Return when a release that is still unconfirmed is overdue: every wait of its run has an end before.

    A watch may be extended once.
    """
    longest = deadlines.sync + 2 * watch_seconds + max(deadlines.hold, deadlines.person) + deadlines.person
    return effective_at + timedelta(seconds=longest)


def undone_by(bad: Past, releases: Sequence[Past]) -> int | None:
    """Return the generation of the release that has undone ``bad`` already."""
    return max((r.generation for r in releases if r.rollback_of == bad.generation), default=None)


def _refused(code: str, path: str, message: str) -> InvalidRequestError:
    return InvalidRequestError(
        "this rollback cannot be planned",
        issues=(Issue(code=code, path=path, message=message),),
        hint="constitution releases  # lists generations and their standing",
    )


def bad_release(request: RollbackRequest, releases: Sequence[Past]) -> Past | None:
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


def rollback_target(request: RollbackRequest, bad: Past, releases: Sequence[Past], already: int | None) -> Past | None:
    """Return the confirmed release whose artifact is restored; None: withdraw."""
    newest = releases[-1]
    if already is not None:  # its target of then, whatever target this call names
        return next((r for r in releases if r.generation == already and r.checksum is not None), None)
    if newest.generation != bad.generation:
        message = f"generation {newest.generation} is current, not {bad.generation}: it has been replaced already"
        raise _refused("not-current", "/bad_generation", message)
    if request.withdraw:
        if bad.checksum is None:
            raise _refused("nothing-live", "/withdraw", f"generation {bad.generation} is no constitution already")
        return None
    poisoned = {r.checksum for r in releases for s in r.standings if s.standing is Standing.POISONED}
    ever = {r.checksum for r in releases for s in r.standings if s.standing is Standing.CONFIRMED}
    ever -= poisoned | {None, bad.checksum}
    confirmed = {r.checksum for r in releases if r.standing is Standing.CONFIRMED} & ever
    if request.to is not None:
        return _chosen(request.to, bad, releases, ever)
    if bad.kind is Kind.UPDATE and not _was_live_before(bad, releases) and not _was_confirmed(bad):
        return None  # after a withdrawal: the board approved the way back to no constitution, not to the withdrawn one
    before = [r for r in releases if r.generation < bad.generation and r.checksum in confirmed]
    if bad.checksum is None and not before:
        raise _refused("nothing-live", "/bad_generation", "nothing is live, and there is nothing to restore")
    return before[-1] if before else None


def _chosen(to: int, bad: Past, releases: Sequence[Past], ever: set[str | None]) -> Past:
    """Return the release that a person named, whose document must be among those that were ever confirmed."""
    chosen = next((r for r in releases if r.generation == to), None)
    if chosen is None:
        raise _refused("unknown-generation", "/to", f"there is no generation {to}")
    if chosen.checksum == bad.checksum:
        raise _refused("same", "/to", f"generation {to} is the very document that is live")
    if chosen.checksum not in ever:
        raise _refused("never-confirmed", "/to", f"generation {to} was not confirmed, or was found bad since")
    return chosen


def _was_live_before(bad: Past, releases: Sequence[Past]) -> bool:
    """Say whether a document was live when this release replaced it."""
    return any(r.generation == bad.previous_generation and r.checksum is not None for r in releases)


def _was_confirmed(release: Past) -> bool:
    return any(s.standing is Standing.CONFIRMED for s in release.standings)


def is_preauthorised(bad: Past, target: Past | None, releases: Sequence[Past], now: datetime) -> bool:
    """Say whether the approvals of the bad release cover its undo: exactly back to its previous, and in time."""
    return not why_not_preauthorised(bad, target, releases, now)


def why_not_preauthorised(bad: Past, target: Past | None, releases: Sequence[Past], now: datetime) -> str:
    """Return why the approvals of the bad release do not cover its undo, for the people who must sign; "": they do."""
    if bad.kind is not Kind.UPDATE or not bad.is_approved:
        return f"generation {bad.generation} is a {bad.kind.value}: no approval of an update authorises its undo"
    previous = next((r.checksum for r in releases if r.generation == bad.previous_generation), None)
    if (target.checksum if target else None) != previous:
        return "its approvals authorise the way back to what was live before it, and this is another target"
    confirmations = [s.recorded_at for s in bad.standings if s.standing is Standing.CONFIRMED]
    if not confirmations:
        return ""
    later = [
        r.generation
        for r in releases
        if r.generation > bad.generation and any(s.standing is Standing.CONFIRMED for s in r.standings)
    ]
    if later:
        return f"the authorisation given with its approvals ended when generation {later[0]} was confirmed"
    ended = confirmations[-1] + PREAUTHORISED_FOR
    if now > ended:
        return f"the authorisation given with its approvals ended at {ended.isoformat(timespec='seconds')}"
    return ""
