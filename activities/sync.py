"""Runbook step 4, first half: every target obeys the release, and decides as the domain does."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from temporalio import activity

from activities.attesting import Attester
from activities.failures import NotConvergedError, classified
from activities.fan_out import Tally, TargetState, ask_until_settled, each
from activities.golden import golden_requests
from activities.keys import require_environment
from activities.ports import ActivityConfig, ConstitutionService, TargetClient
from constitution.checksum import Checksum
from constitution.environment import Target
from constitution.errors import ContentError, Issue, NotYetError, TransportError
from constitution.listing import named
from constitution.model import Model
from constitution.policy import document as documents
from constitution.policy.evaluation import EvaluationRequest, PolicyDecision
from constitution.policy.rules import Policy
from constitution.release import Release
from constitution.target_sources import Fleet
from constitution.trust.attestation import GoldenReport, SyncPredicate
from constitution.trust.fleet import LISTED, Discovered, FleetReport, TargetReport, exceptions, listing


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

    Of each the first ``constitution.listing.NAMED`` are named; ``more_…`` counts the others, so that the history of a
    run does not grow with the fleet. All of them are in the list that the assessor's attestation names.
    Who answered in this attempt lags until ``GIVEN_UP`` questions in a row got no answer: one that is lost right before
    the deadline does not hide that the target obeys something else.
    """

    converged: tuple[str, ...]
    lagging: tuple[str, ...]
    unreachable: tuple[str, ...]
    more_converged: int = 0
    more_lagging: int = 0
    more_unreachable: int = 0

    def obeyed_by(self) -> str:
        """Return who obeys, for people."""
        return named(self.converged, self.more_converged)

    def silent(self) -> str:
        """Return who gave no answer, for people; empty if nobody."""
        return named(self.unreachable, self.more_unreachable)

    @classmethod
    def of(cls, tally: Tally) -> "SyncReport":
        """Return where everybody is."""
        converged, more_converged = tally.names("converged")
        lagging, more_lagging = tally.names("lagging")
        unreachable, more_unreachable = tally.names("unreachable")
        return cls(
            converged=converged,
            lagging=lagging,
            unreachable=unreachable,
            more_converged=more_converged,
            more_lagging=more_lagging,
            more_unreachable=more_unreachable,
        )


class Converged(NamedTuple):
    """What a sync came to, the list that it asked, and what each target said."""

    report: SyncReport
    tally: Tally
    fleet: Fleet
    golden: GoldenReport | None


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
        found = await self.converge(task)
        await self.attest(release, found)
        return found.report

    async def converge(self, x: SyncTask) -> Converged:
        """Ask until all converged; return who did, what each said last, and what the golden requests came to.

        Raises:
            NotConvergedError, NotYetError, UnavailableError: as ``sync_targets``.
        """
        fleet = await self._config.fleet(x.rings)
        tally = Tally.of(fleet.all)

        async def ask(target: Target, state: TargetState) -> None:
            await self._ask(target, state, x)

        await ask_until_settled(
            fleet.all,
            tally,
            ask,
            deadline_s=x.deadline_seconds,
            settled=lambda tally: not x.require_all and tally.only_silent_left,
        )
        report = SyncReport.of(tally)
        _judge(report, tally, x)
        return Converged(report, tally, fleet, await self._golden(x, fleet))

    async def attest(self, release: Release, found: Converged) -> None:
        """Sign what each target obeys; of many its digest and counts, and store the list that they are of."""
        reports = found.tally.reports()
        own = reports
        if found.fleet.discovered:
            static = {target.id for target in found.fleet.static}
            own = tuple(report for report in reports if report.id in static)
        discovered = [
            await self._discovered(name, reports, targets, golden=found.golden is not None)
            for name, targets in found.fleet.discovered.items()
        ]
        fleet = await self._stored(own) if len(own) > LISTED else None
        await self._assessor.attest(
            SyncPredicate(
                environment=release.environment,
                generation=release.generation,
                update_id=release.update_id,
                checksum=release.checksum,
                rings=release.rings,
                targets=own if fleet is None else exceptions(own),
                golden=found.golden,
                fleet=fleet,
                discovered=tuple(discovered),
            )
        )

    async def _discovered(
        self, source: str, reports: Sequence[TargetReport], targets: Sequence[Target], *, golden: bool
    ) -> Discovered:
        listed = {target.id for target in targets}
        engines = sum(target.kind == "policy_engine" for target in targets)
        fleet = await self._stored([report for report in reports if report.id in listed])
        return Discovered(source=source, fleet=fleet, golden=engines if golden else 0)

    async def _stored(self, reports: Sequence[TargetReport]) -> FleetReport:
        data = await asyncio.to_thread(listing, reports)
        await self._service.put_blob(data)
        return await asyncio.to_thread(FleetReport.of_listing, data)

    async def _golden(self, x: SyncTask, fleet: Fleet) -> GoldenReport | None:
        """Compare, as the probe tenant, which the watch leaves out; targets have converged.

        Raises:
            NotConvergedError: an engine decides otherwise, or by another document.
            UnavailableError: an engine does not answer.
        """
        if not x.golden or x.checksum is None:
            return None
        policy = Policy.compile(documents.parse(await self._service.artifact(x.checksum)))
        requests = await asyncio.to_thread(golden_requests, self._config.gate_directory)
        wanted = [(request, policy.evaluate(request)) for request in requests]
        engines = [target for target in fleet.all if target.kind == "policy_engine"]
        checksum = x.checksum

        async def compare(engine: Target) -> list[str]:
            return await self._compare(engine, wanted, checksum)

        found = await each(engines, compare, what="golden requests")
        mismatches = tuple(line for lines in found for line in lines)
        if mismatches:
            raise NotConvergedError(
                f"{len(mismatches)} decisions differ from what generation {x.generation} says",
                issues=tuple(Issue(code="golden-mismatch", message=line) for line in mismatches[:50]),
            )
        own = [target.id for target in fleet.static if target.kind == "policy_engine"]
        return GoldenReport.of(own, len(requests))

    async def _ask(self, target: Target, state: TargetState, x: SyncTask) -> None:
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

    async def _compare(
        self, engine: Target, wanted: Sequence[tuple[EvaluationRequest, PolicyDecision]], checksum: Checksum
    ) -> list[str]:
        found = []
        for number, (request, expected) in enumerate(wanted, start=1):
            answer = await self._targets.evaluate(engine, request.model_dump(mode="json"))
            if answer["policy_hash"] != checksum:
                found.append(f"{engine.id} decides by {answer['policy_hash'] or 'no constitution'}, not {checksum}")
                break
            if any(answer[name] != value for name, value in expected.model_dump(mode="json").items()):
                decided, right = f"{answer['decision']} by {answer['rule']}", f"{expected.decision} by {expected.rule}"
                found.append(f"{engine.id}: request {number} is answered with {decided}, not {right}")
        return found


def _judge(report: SyncReport, tally: Tally, x: SyncTask) -> None:
    behind = dict.fromkeys(report.lagging, "lagging")
    others = report.more_lagging
    if x.require_all:
        behind |= dict.fromkeys(report.unreachable, "unreachable")
        others += report.more_unreachable
    if not behind:
        return
    issues = [Issue(code=why, path=name, message=tally.states[name].description) for name, why in behind.items()]
    if others:
        issues.append(Issue(code="more", message=f"and {others:,} others"))
    message = (
        f"generation {x.generation} is not obeyed by {named(behind, others, most=len(behind))} "
        f"after {x.deadline_seconds:g} s"
    )
    if x.require_all:
        raise NotConvergedError(message, issues=issues, hint="look at the log of each target named")
    raise NotYetError(message, issues=issues)
