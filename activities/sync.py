"""Runbook step 4, first half: every target obeys the release, and decides as the domain does."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from temporalio import activity

from activities.attesting import Attester
from activities.failures import NotConvergedError, classified
from activities.golden import golden_requests
from activities.keys import require_environment
from activities.ports import ActivityConfig, ConstitutionService, TargetClient
from constitution.checksum import Checksum
from constitution.environment import Target
from constitution.errors import ContentError, Issue, NotYetError, TransportError
from constitution.model import Model
from constitution.policy import document as documents
from constitution.policy.evaluation import EvaluationRequest
from constitution.policy.rules import Policy
from constitution.trust.attestation import GoldenReport, SyncPredicate, TargetReport

BEAT = timedelta(seconds=1)  # a cancel is noticed within it
ASK_AGAIN = timedelta(milliseconds=250)  # a target that follows the event is there after one or two of these
GIVEN_UP = 3  # questions in a row without an answer after which a target is silent, whatever it said before


class SyncInput(Model):
    """Which release every target of its rings must report."""

    environment: str
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncTask:
    """What the release of an input is: its checksum (null: targets must report none), its rings, and how long to ask.

    ``require_all``: the silent must obey, too; ``golden``: engines are asked the golden requests.
    """

    generation: int
    checksum: Checksum | None
    rings: tuple[str, ...]
    deadline_seconds: float
    require_all: bool
    golden: bool = False


class SyncReport(Model):
    """Target ids: proven, answering with something else, and not answering (never the same as converged).

    Who answered in this attempt lags until ``GIVEN_UP`` questions in a row got no answer: one that is lost right before
    the deadline does not hide that the target obeys something else.
    """

    converged: tuple[str, ...]
    lagging: tuple[str, ...]
    unreachable: tuple[str, ...]


@dataclass(slots=True)
class _State:
    """What a target said last, if it ever did. ``silent`` counts the questions in a row that it did not answer."""

    converged: bool = False
    answer: str | None = None
    generation: int | None = None
    checksum: Checksum | None = None
    silent: int = 0
    silence: str = "has not answered yet"

    @property
    def unreachable(self) -> bool:
        """It never answered, or has stopped answering."""
        return self.answer is None or self.silent >= GIVEN_UP

    @property
    def description(self) -> str:
        """Its last answer, and why there is none since; for people."""
        if self.answer is None:
            return self.silence
        return f"{self.answer}; then {self.silence}" if self.silent else self.answer


class Sync:
    """Asks targets; changes nothing but what a target itself refreshes."""

    def __init__(
        self, *, targets: TargetClient, service: ConstitutionService, config: ActivityConfig, assessor: Attester
    ) -> None:
        self._targets = targets
        self._service = service
        self._config = config
        self._assessor = assessor

    @activity.defn
    @classified
    async def sync_targets(self, x: SyncInput) -> SyncReport:
        """Have every target refresh and say what it obeys, all at once, until all do or the deadline has come; sign it.

        An update: everybody must converge. An undo: everybody who answers must; who is silent is named, and is not
        waited for once the others are proven. The deadline counts from this attempt. After a first release, which no
        watch judges, every policy engine is asked for each decision that the domain makes about the golden requests.
        Twice, killed half-way, or late: it only asks, and a refresh is safe at any moment. A cancel is noticed within
        a second. A target that dies shortly before the deadline lags in this attempt; the next one counts anew, gets
        no answer at all, and names it unreachable.

        Raises:
            NotConvergedError: an update, and a target lags or is unreachable at the deadline, each is named; or an
                engine decides otherwise than the document says.
            NotYetError: an undo, and a target that answers lags at the deadline.
            UnavailableError: an engine, or constitution-service, does not answer.
        """
        require_environment(self._config, x.environment)
        release, first = await self._assessor.release(x.generation)
        undoes = release.kind.undoes
        task = SyncTask(
            generation=x.generation,
            checksum=release.checksum,
            rings=release.rings,
            deadline_seconds=self._config.environment.deadlines.sync,
            require_all=not undoes,
            golden=first and not undoes,
        )
        report, states, golden = await self.converge(task)
        await self._assessor.attest(
            SyncPredicate(
                environment=x.environment,
                generation=x.generation,
                update_id=release.update_id,
                checksum=release.checksum,
                rings=release.rings,
                targets=tuple(_told(name, states[name], report) for name in sorted(states)),
                golden=golden,
            )
        )
        return report

    async def converge(self, x: SyncTask) -> tuple[SyncReport, dict[str, "_State"], GoldenReport | None]:
        """Ask until all converged; return who did, what each said last, and what the golden requests came to.

        Raises:
            NotConvergedError, NotYetError, UnavailableError: as ``sync_targets``.
        """
        targets = self._in_rings(x.rings)
        states = {target.id: _State() for target in targets}
        tasks = [asyncio.create_task(self._follow(target, states[target.id], x)) for target in targets]
        try:
            await _until_settled(tasks, states, x)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        report = SyncReport(
            converged=_ids(states, lambda s: s.converged),
            lagging=_ids(states, lambda s: not s.converged and not s.unreachable),
            unreachable=_ids(states, lambda s: not s.converged and s.unreachable),
        )
        _judge(report, states, x)
        return report, states, await self._golden(x)

    async def _golden(self, x: SyncTask) -> GoldenReport | None:
        """Compare, as the probe tenant, which the watch leaves out; targets have converged.

        Raises:
            NotConvergedError: an engine decides otherwise, or by another document.
            UnavailableError: an engine does not answer.
        """
        if not x.golden or x.checksum is None:
            return None
        policy = Policy.compile(documents.parse(await self._service.artifact(x.checksum)))
        requests = await asyncio.to_thread(golden_requests, self._config.gate_directory)
        engines = [t for t in self._in_rings(x.rings) if t.kind == "policy_engine"]
        found = await asyncio.gather(*(self._compare(engine, policy, requests, x.checksum) for engine in engines))
        mismatches = tuple(line for lines in found for line in lines)
        if mismatches:
            raise NotConvergedError(
                f"{len(mismatches)} decisions differ from what generation {x.generation} says",
                issues=tuple(Issue(code="golden-mismatch", message=line) for line in mismatches[:50]),
            )
        return GoldenReport(engines=tuple(e.id for e in engines), vectors=len(requests))

    def _in_rings(self, rings: tuple[str, ...]) -> tuple[Target, ...]:
        return tuple(target for target in self._config.environment.targets if target.ring in rings)

    async def _follow(self, target: Target, state: _State, x: SyncTask) -> None:
        while not state.converged:
            try:
                policy = await self._targets.policy(target, force=True)
            except TransportError as error:
                state.silent += 1
                state.silence = error.message
            except ContentError as error:  # it answered, and refused: never the same as converged
                state.silent = 0
                state.answer = error.message
            else:
                state.silent = 0
                state.answer = f"obeys generation {policy['generation']}, {policy['checksum'] or 'no constitution'}"
                state.generation, state.checksum = policy["generation"], policy["checksum"]
                state.converged = policy["generation"] == x.generation and policy["checksum"] == x.checksum
            if not state.converged:
                await asyncio.sleep(ASK_AGAIN.total_seconds())

    async def _compare(
        self, engine: Target, policy: Policy, requests: tuple[EvaluationRequest, ...], checksum: Checksum
    ) -> list[str]:
        found = []
        for number, request in enumerate(requests, start=1):
            activity.heartbeat(f"{engine.id}: {number}/{len(requests)}")
            answer = await self._targets.evaluate(engine, request.model_dump(mode="json"))
            expected = policy.evaluate(request)
            if answer["policy_hash"] != checksum:
                found.append(f"{engine.id} decides by {answer['policy_hash'] or 'no constitution'}, not {checksum}")
                break
            if any(answer[name] != value for name, value in expected.model_dump(mode="json").items()):
                decided, wanted = f"{answer['decision']} by {answer['rule']}", f"{expected.decision} by {expected.rule}"
                found.append(f"{engine.id}: request {number} is answered with {decided}, not {wanted}")
        return found


async def _until_settled(tasks: list[asyncio.Task[None]], states: dict[str, _State], x: SyncTask) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + x.deadline_seconds
    open_tasks = set(tasks)
    while open_tasks:
        activity.heartbeat({name: "converged" if s.converged else s.description for name, s in states.items()})
        wait = min(BEAT.total_seconds(), deadline - loop.time())
        if wait <= 0 or (not x.require_all and _only_silent_left(states)):
            return
        done, open_tasks = await asyncio.wait(open_tasks, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()  # a follower ends only when its target has converged, or by a defect


def _only_silent_left(states: dict[str, _State]) -> bool:
    left = [state for state in states.values() if not state.converged]
    return len(left) < len(states) and all(s.silent >= GIVEN_UP for s in left)


def _ids(states: dict[str, _State], which: Callable[[_State], bool]) -> tuple[str, ...]:
    return tuple(sorted(name for name, state in states.items() if which(state)))


def _told(name: str, state: _State, report: SyncReport) -> TargetReport:
    said: Literal["converged", "lagging", "unreachable"] = "converged"
    if name not in report.converged:
        said = "unreachable" if name in report.unreachable else "lagging"
    return TargetReport(id=name, state=said, generation=state.generation, checksum=state.checksum)


def _judge(report: SyncReport, states: dict[str, _State], x: SyncTask) -> None:
    behind = [*report.lagging, *report.unreachable] if x.require_all else list(report.lagging)
    if not behind:
        return
    kinds = {name: "lagging" if name in report.lagging else "unreachable" for name in behind}
    issues = tuple(Issue(code=kinds[name], path=name, message=states[name].description) for name in behind)
    message = f"generation {x.generation} is not obeyed by {', '.join(behind)} after {x.deadline_seconds:g} s"
    if x.require_all:
        raise NotConvergedError(message, issues=issues, hint="look at the log of each target named")
    raise NotYetError(message, issues=issues)
