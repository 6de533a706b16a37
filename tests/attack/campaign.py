"""One attack from beginning to end: real runs, acts, rest, a comparison, a release under attack, a genuine one."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from temporalio.client import WorkflowHandle, WorkflowUpdateFailedError
from temporalio.service import RPCError

from constitution.messages import Phase
from constitution.release import Standing
from constitution.trust.approval import BoardDecision
from tests.attack import directed
from tests.attack.acts import ALONE, FOREIGN, Attacker, Tally
from tests.attack.corpus import corpus_of, registered
from tests.attack.facts import facts_of, unsigned_changes
from tests.faults.auditor import Auditor
from tests.helpers import eventually
from tests.world.environment import LEAF, RunningEnvironment, state_of

LEASE_SECONDS: Final = 15
"""So long can a lease that was taken at will delay a release here."""

SETTINGS: Final = {
    "LEASE_SECONDS": str(LEASE_SECONDS),
    "RECONCILE_SECONDS": "3",
    "RECONCILE_CLOSED_SECONDS": "3",
}
"""Settings of an environment under attack: as shipped, in a shorter time."""

REST: Final = timedelta(seconds=180)
TRIES: Final = 5  # of a genuine release: what a stranger had begun may hold the lease for a moment
MOVED: Final = timedelta(seconds=2)
COMES: Final = timedelta(seconds=20)  # within it an update is approved, and aborted
LIVE_SHARE: Final = 0.2
"""Part of the acts that are done while a release is live and not confirmed."""


@dataclass
class Report:
    """What became of an attack; it is green without findings.

    Args:
        findings: everything that has changed without a signature, or does not hold.
        tally: acts by kind.
        delay_s: seconds from the last act to the end of a genuine release.
    """

    findings: list[str] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    delay_s: float = 0.0


async def campaign(
    env: RunningEnvironment, acts: int, seed: int, say: Callable[[str], None], rest: timedelta = REST
) -> Report:
    """Attack an environment of nobody else; its lease must end after `LEASE_SECONDS`.

    Args:
        env: which.
        acts: how many, beside those that are tried in every attack.
        seed: of every choice.
        say: takes a line for people.
        rest: so long it may take until all is at rest again.
    """
    report = Report()
    auditor = Auditor(env.settings | env.direct, env.client)
    scene = await _scene(env)
    corpus = await corpus_of(env.client, env.names.task_queue())
    say(f"inputs of {len(corpus.activities)} of {len(registered())} activities, seed {seed}")
    people = frozenset(person.id for person in env.files.trust.people)

    before = await facts_of(env)
    attacker = Attacker(env, corpus, seed)
    report.tally = attacker.tally
    await directed.at_rest(env, attacker, scene.ended, scene.early)
    await attacker.attack(round(acts * (1 - LIVE_SHARE)))
    for run in scene.open:
        await _abort(run)
    with _noted(report):
        await _rest(env, rest)
    report.findings += _ran_for_others(attacker.tally)
    report.findings += unsigned_changes(before, await facts_of(env), people)
    said = f"{attacker.tally.tried.total()} acts at rest: {len(report.findings)} findings"
    say("\n  ".join([said, *report.findings]))
    if report.findings:
        return report  # what is wrong by now would be found again, and keep a release from coming to its end

    with _noted(report):
        report.findings += await _attacked_while_live(env, attacker, round(acts * LIVE_SHARE), rest)
    ended = time.monotonic()
    with _noted(report):
        await _released(env)
        await _rest(env, rest)
    unasked = {f"activity {name}" for name in registered()} - attacker.tally.tried.keys()
    report.findings += [f"{name} was never tried" for name in sorted(unasked)]
    report.delay_s = round(time.monotonic() - ended, 1)
    audit = await auditor.audit()
    # A captured run has no outcome of ours: it is the attacker's.
    report.findings += [f"{one.invariant}: {one.what}" for one in audit.findings if "/captured/" not in one.what]
    if sum(audit.checks.values()) == 0:
        report.findings.append("the auditor looked at nothing")
    return report


@contextlib.contextmanager
def _noted(report: Report) -> Iterator[None]:
    """Note what did not come about within its time."""
    try:
        yield
    except AssertionError as error:
        report.findings.append(str(error))


def _ran_for_others(tally: Tally) -> list[str]:
    """Return the activities that ran although none of our runs had asked for them."""
    return [
        f"{kind}: {text}"
        for (kind, text), _ in tally.answers.items()
        if (kind == ALONE and text.startswith("answered")) or (kind == FOREIGN and text != "refused: forbidden")
    ]


@dataclass(frozen=True)
class Scene:
    """What was going on before the attack.

    Args:
        ended: id of an update that two of the board approved, and that was aborted; its time has come.
        early: id of an update that two of the board approved, whose time has not come.
        open: the runs that wait: of that one, and of one that waits for its board and that an operator holds.
    """

    ended: str
    early: str
    open: tuple[WorkflowHandle[Any, Any], ...]


async def _scene(env: RunningEnvironment) -> Scene:
    """Make histories of every kind."""
    await env.completed()
    watched, _ = await env.approved(strategy="unseen")
    end = await env.end(watched)
    assert end.type is None, end.message
    bad = (await env.live()).generation
    handle, _ = await env.approved()
    async with env.paused(LEAF):
        await env.until_step(handle, "sync")
        await env.steer(handle, "abort")
        await env.end(handle)
    assert (await env.live()).generation == bad + 2
    denied = await env.author.propose()
    run = await env.update(denied)
    status = await env.until_step(run, "board", "waiting")
    envelope = env.author.approval("alva", denied, status, decision=BoardDecision.DENY)
    await run.execute_update("decide", {"approval": envelope.model_dump(mode="json")})
    await env.end(run)
    await env.completed()
    # Approved by two, and not live: their signatures are in Temporal for everybody to read.
    comes = datetime.now(UTC) + COMES
    ended, _ = await env.approved(not_before=comes.isoformat())
    await ended.execute_update("abort", {"reason": "not now"})
    await env.end(ended)
    early, _ = await env.approved(not_before="2099-01-01T00:00:00Z")
    look = f"{env.names.namespace}/look"
    await env.end(await env.start_run("ConstitutionReconcile", look, {"repair": True, "closed_seconds": 1}))
    waiting = await env.update(await env.author.propose())
    await env.until_step(waiting, "board", "waiting")
    await env.steer(waiting, "hold")

    async def come() -> bool:
        return datetime.now(UTC) > comes

    await eventually(come, 2 * COMES)
    ids = [(await env.status(run)).update_id or "" for run in (ended, early)]
    return Scene(ended=ids[0], early=ids[1], open=(waiting, early))


async def _published(env: RunningEnvironment) -> tuple[WorkflowHandle[Any, Any], int]:
    """Put something live, and return its run, which then waits for a target; an attacker may delay it."""
    for _ in range(TRIES):
        handle, _ = await env.approved()
        status = await env.until(handle, lambda s: state_of(s, "sync") == "running" or s.outcome is not None)
        if status.outcome is None and status.generation is not None:
            return handle, status.generation
    raise AssertionError(f"nothing was published in {TRIES} tries: {status.outcome_detail}")


async def _released(env: RunningEnvironment) -> None:
    """Put something live, and confirm it; an attacker may delay it."""
    for _ in range(TRIES):
        handle, _ = await env.approved()
        end = await env.end(handle)
        if end.type is None:
            return
    raise AssertionError(f"nothing was confirmed in {TRIES} tries: {end.message}")


async def _abort(handle: WorkflowHandle[Any, Any]) -> None:
    try:
        await handle.execute_update("abort", {"reason": "the attack is over"})
    except (RPCError, WorkflowUpdateFailedError):
        return  # the attacker has ended it: who stops may delay


async def _rest(env: RunningEnvironment, within: timedelta) -> None:
    """Wait until no run is open and all agree. A lease that was taken for nothing may stand until somebody wants it."""

    async def closed() -> bool:
        opened = [run for run in await env.open_runs() if "reconcile" not in run]
        assert opened == [], opened
        return True

    await eventually(closed, within)
    await eventually(env.agreed, within)


async def _pending(handle: WorkflowHandle[Any, Any]) -> frozenset[str]:
    return frozenset(one.activity_id for one in (await handle.describe()).raw_description.pending_activities)


async def _goes_on(handle: WorkflowHandle[Any, Any], before: frozenset[str]) -> None:
    """Wait until a run has gone on from what it waited for, if the attacker has moved it at all."""

    async def moved() -> bool:
        return await _pending(handle) != before

    with contextlib.suppress(AssertionError):
        await eventually(moved, MOVED)


async def _attacked_while_live(env: RunningEnvironment, attacker: Attacker, acts: int, rest: timedelta) -> list[str]:
    """Attack while a release is live that one target does not obey: it must not be confirmed."""
    found = []
    async with env.paused(LEAF):
        handle, generation = await _published(env)
        for _ in range(3):
            before = await _pending(handle)
            await attacker.tried("complete an activity", attacker.complete(handle))
            await _goes_on(handle, before)
        await directed.while_live(env, attacker, handle, generation)
        await attacker.activities(acts)
        standing = (await env.service.release(generation)).standing
        if standing in (Standing.CONFIRMED, Standing.POISONED):
            found.append(f"generation {generation} was {standing} while {LEAF} stood still")
    # What was completed by hand is no result: the run asks for a person, who has it undone.
    status = await env.until(handle, lambda s: s.outcome is not None or s.phase is Phase.NEEDS_A_PERSON)
    if status.outcome is None:
        with contextlib.suppress(WorkflowUpdateFailedError):  # the target obeys by now, and the run has gone on
            await env.steer(handle, "abort")
    await env.end(handle, rest)
    await _rest(env, rest)
    return found
