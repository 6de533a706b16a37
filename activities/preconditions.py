"""Runbook, preconditions: what is asked for, who signed it, what the board decided. The gate: activities/gate.py."""

import asyncio
from datetime import UTC, datetime
from typing import Literal

from temporalio import activity

from activities.decisions import DecisionResult, judge_decision, judge_order, require_approved
from activities.documents import update_files
from activities.ending import noted
from activities.failures import classified
from activities.keys import require_environment
from activities.orders import SteerInput, order_request
from activities.past_releases import past_releases
from activities.plan import RollbackPlan
from activities.ports import ActivityConfig, ConstitutionService
from activities.resolving import Resolver, harmful_issues, require_succession
from activities.update_plan import UpdatePlan
from constitution.checksum import Checksum
from constitution.errors import EvidenceError
from constitution.messages import UpdateRequest
from constitution.model import Model
from constitution.policy import document as documents
from constitution.release import Envelope, Kind
from constitution.trust.approval import BoardDecision
from constitution.trust.approval_rules import Binding
from signatures.verify import verify_document

__all__ = [
    "DecisionInput",
    "DecisionResult",
    "OrderInput",
    "OrderResult",
    "Preconditions",
    "RecheckInput",
    "ResolveInput",
    "RollbackDecisionInput",
    "SignaturesResult",
]


class ResolveInput(Model):
    """Input of ``resolve_update``."""

    request: UpdateRequest
    update_id: str
    workflow_id: str
    run_id: str


class SignaturesResult(Model):
    """Who signed the document, and what was found wrong with a signature that was not needed."""

    signers: tuple[str, ...]
    findings: tuple[str, ...]


class DecisionInput(Model):
    """One signed decision about an update; ``seen`` are the approvals that were accepted before it."""

    update: UpdatePlan
    evidence: Checksum
    envelope: Envelope
    seen: tuple[Envelope, ...] = ()


class RollbackDecisionInput(Model):
    """One signed decision about a rollback or withdrawal that no approval pre-authorised."""

    plan: RollbackPlan
    envelope: Envelope
    seen: tuple[Envelope, ...] = ()


class OrderInput(Model):
    """A signed order to one run; ``seen`` are the orders of the same kind and step accepted before it."""

    environment: str
    workflow_id: str
    update_id: str
    order: Literal["skip", "promote"]
    step: str | None = None
    envelope: Envelope
    seen: tuple[Envelope, ...] = ()


class OrderResult(Model):
    """An order that counts; ``satisfied`` when enough members of the board (threshold ``override``) gave it."""

    person: str
    reason: str
    orderers: tuple[str, ...]
    needed: int
    satisfied: bool


class RecheckInput(Model):
    """Input of ``recheck``: everything that was true when the board decided."""

    update: UpdatePlan
    evidence: Checksum
    envelopes: tuple[Envelope, ...]


class Preconditions:
    """Everything before the first change; reads much, changes nothing live."""

    def __init__(self, *, service: ConstitutionService, config: ActivityConfig) -> None:
        self._service = service
        self._config = config

    @activity.defn
    @classified
    async def resolve_update(self, x: ResolveInput) -> UpdatePlan:
        """Find out what the request is about, and everything that is wrong with it. Reads only; nothing is pushed.

        Twice, killed half-way, or late: reads; the answer is true of the moment it was made, and ``recheck`` compares.

        Raises:
            InvalidRequestError: with every problem found and the next command to type.
            UnavailableError: constitution-service does not answer.
        """
        resolver = Resolver(self._service, self._config)
        strategy = resolver.strategy(x.request)
        data, checksum = await resolver.document(x.request)
        asked = await resolver.change_request(x.request.change_request, checksum)
        releases = await past_releases(self._service)
        constitution = await resolver.constitution(data, releases)
        if not resolver.problems:  # a document that is drafted anew has a request of its own
            resolver.unused(x.request.change_request, releases)
        if resolver.problems or constitution is None or checksum is None or asked is None or strategy is None:
            raise resolver.refusal()
        environment = self._config.environment
        thresholds = self._config.trust.thresholds
        return UpdatePlan(
            update_id=x.update_id,
            workflow_id=x.workflow_id,
            run_id=x.run_id,
            environment=self._config.name,
            kind=Kind.UPDATE,
            checksum=checksum,
            version=constitution.version,
            title=constitution.title,
            summary=constitution.summary,
            previous=constitution.previous,
            effective_at=constitution.effective_at,
            expires_at=constitution.expires_at,
            change_request=asked.id,
            author=asked.author,
            reason=asked.reason,
            rings=environment.rings(),
            expected_generation=max((r.generation for r in releases), default=0),
            approvals_needed=thresholds.for_update(
                first=constitution.previous is None, watched=strategy.watch_seconds > 0
            ),
            strategy_name=x.request.strategy,
            strategy=strategy,
            not_before=x.request.not_before,
            deadlines=environment.deadlines,
            channel=environment.channel,
            links=self._config.links,
            document=x.request.document,
            signatures=x.request.signatures or (),
        )

    @activity.defn
    @classified
    async def verify_signatures(self, x: UpdatePlan) -> SignaturesResult:
        """Check the document's signatures against the trust policy's threshold of maintainers.

        Twice, killed half-way, or late: reads and computes.

        Raises:
            UntrustedError: fewer maintainers than needed; the reason of each signature that does not count.
        """
        require_environment(self._config, x.environment)
        document, signatures = await update_files(self._service, self._config, x)
        trust = self._config.trust
        # In a thread: the first Sigstore bundle loads its library for a second.
        report = await asyncio.to_thread(verify_document, document, signatures, trust, datetime.now(UTC))
        report.require(trust.thresholds.for_document(Kind.UPDATE, first=x.first))
        findings = tuple(f"signature {f.index + 1}: {f.detail}" for f in report.findings)
        return SignaturesResult(signers=report.signers, findings=findings)

    @activity.defn
    @classified
    async def check_decision(self, x: DecisionInput) -> DecisionResult:
        """Check one signed decision about an update, and count it with those before it.

        A denial closes the change request in the service, and the last approval that it takes is noted there, before
        the answer says that they count: both bind, however the run ends. The service verifies them itself.
        Twice, killed half-way, or late: the service keeps each once.

        Raises:
            ConflictError: a denial that comes after the confirmation.
            UpdateClosedError: an approval of an update that has ended.
            NotApprovedError: it does not count, and why: not signed by a board member, by the author, expired, or about
                another document, change request, environment or evidence.
        """
        update = x.update
        require_environment(self._config, update.environment)
        checked = await asyncio.to_thread(
            judge_decision,
            x.envelope,
            x.seen,
            binding=_binding(update, x.evidence),
            trust=self._config.trust,
            author=update.author,
            needed=update.approvals_needed,
            now=datetime.now(UTC),
        )
        if checked.decision is BoardDecision.DENY:
            await self._service.deny(update.change_request, x.envelope)
        elif checked.satisfied:
            await noted(self._service, update.update_id, update.change_request, (*x.seen, x.envelope))
        return checked

    @activity.defn
    @classified
    async def check_rollback_decision(self, x: RollbackDecisionInput) -> DecisionResult:
        """Check one signed decision about an undoing that no approval pre-authorised.

        Twice, killed half-way, or late: computes; nothing is kept.

        Raises:
            NotApprovedError: it does not count, and why. Nobody is the author of a rollback.
        """
        plan = x.plan
        require_environment(self._config, plan.environment)
        binding = Binding(
            kind=plan.kind, environment=plan.environment, checksum=plan.checksum, rollback_of=plan.bad_generation
        )
        return await asyncio.to_thread(
            judge_decision,
            x.envelope,
            x.seen,
            binding=binding,
            trust=self._config.trust,
            author=None,
            needed=plan.quorum,
            now=datetime.now(UTC),
        )

    @activity.defn
    @classified
    async def check_order(self, x: OrderInput) -> OrderResult:
        """Check a board member's signed order to a run (skip, promote), and count it with those before it.

        Twice, or killed half-way: the service keeps it once. Late: the order has its own expiry.

        Raises:
            NotApprovedError: it does not count. Too few that do is no error: ``satisfied`` says so.
            OrderUsedError: it was obeyed before.
        """
        require_environment(self._config, x.environment)
        trust, now = self._config.trust, datetime.now(UTC)
        orders = [
            await asyncio.to_thread(
                judge_order,
                envelope,
                trust=trust,
                environment=x.environment,
                workflow_id=x.workflow_id,
                update_id=x.update_id,
                order=x.order,
                step=x.step,
                now=now,
            )
            for envelope in (x.envelope, *x.seen)
        ]
        people = tuple(dict.fromkeys(person for person, _ in orders))
        needed = trust.thresholds.override
        await self._service.accept_order(
            order_request(
                SteerInput(
                    environment=x.environment,
                    update_id=x.update_id,
                    order=x.order,
                    step=x.step,
                    envelope=x.envelope,
                )
            )
        )
        return OrderResult(
            person=orders[0][0],
            reason=orders[0][1].reason,
            orderers=people,
            needed=needed,
            satisfied=len(people) >= needed,
        )

    @activity.defn
    @classified
    async def recheck(self, x: RecheckInput) -> UpdatePlan:
        """Ask everything again that time may have changed since the board decided; return the update for the load.

        Assumes: the artifact is staged. Twice, killed half-way, or late: reads; the service asks all of it again.

        Raises:
            InvalidDocumentError: expired, about to, or something else is live by now.
            NotApprovedError: approvals have expired, or their keys.
            EvidenceError: the evidence is of something else.
        """
        update = x.update
        require_environment(self._config, update.environment)
        now = datetime.now(UTC)
        data = await self._service.artifact(update.checksum)
        releases = await past_releases(self._service)
        require_succession(
            documents.parse(data),
            update.checksum,
            releases,
            update.environment,
            now,
            harmful=await harmful_issues(self._service, data),
        )
        evidence = await self._service.evidence(x.evidence)
        if (evidence.checksum, evidence.change_request) != (update.checksum, update.change_request):
            raise EvidenceError(f"the evidence {x.evidence} was made for other bytes or another change request")
        await asyncio.to_thread(
            require_approved,
            x.envelopes,
            binding=_binding(update, x.evidence),
            trust=self._config.trust,
            author=update.author,
            needed=update.approvals_needed,
            now=now,
        )
        return update.model_copy(update={"expected_generation": max((r.generation for r in releases), default=0)})


def _binding(update: UpdatePlan, evidence: str) -> Binding:
    return Binding(
        kind=update.kind,
        environment=update.environment,
        checksum=update.checksum,
        version=update.version,
        previous=update.previous,
        change_request=update.change_request,
        evidence=evidence,
        plan=update.plan,
    )
