"""Runbook, preconditions: what is asked for, who signed it, whether the gate passes, what the board decided."""

from datetime import datetime
from typing import Literal

from temporalio import activity

from activities.failures import classified
from activities.ports import ConstitutionService, Deployment, GateRunner
from activities.restore import RollbackPlan
from activities.subject import Subject
from constitution.approval import Verb
from constitution.checksum import Checksum
from constitution.messages import UpdateRequest
from constitution.model import Model
from constitution.release import Envelope


class ResolveInput(Model):
    """Input of ``resolve_subject``."""

    request: UpdateRequest
    update_id: str
    workflow_id: str
    run_id: str


class SignaturesResult(Model):
    """Who signed the document, and what was found wrong with a signature that was not needed."""

    signers: tuple[str, ...]
    findings: tuple[str, ...]


class GateResult(Model):
    """The regression gate passed: evidence digest, one line per suite, the readable diff, and how long it took."""

    evidence: Checksum
    suites: tuple[str, ...]
    diff: tuple[str, ...]
    seconds: float


class DecisionInput(Model):
    """One signed decision about an update; ``seen`` are the approvals that were accepted before it."""

    subject: Subject
    evidence: Checksum
    envelope: Envelope
    seen: tuple[Envelope, ...] = ()


class RollbackDecisionInput(Model):
    """One signed decision about a rollback or withdrawal that no approval pre-authorised."""

    plan: RollbackPlan
    envelope: Envelope
    seen: tuple[Envelope, ...] = ()


class DecisionResult(Model):
    """A decision that counts. ``approvers`` are the distinct people so far, this one included."""

    person: str
    decision: Verb
    reason: str
    expires_at: datetime
    approvers: tuple[str, ...]
    needed: int
    satisfied: bool


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
    """An order that counts; act on it when ``satisfied`` (threshold ``override``)."""

    person: str
    reason: str
    orderers: tuple[str, ...] = ()
    needed: int = 1
    satisfied: bool = True


class RecheckInput(Model):
    """Input of ``recheck``: everything that was true when the board decided."""

    subject: Subject
    evidence: Checksum
    envelopes: tuple[Envelope, ...]


class Preconditions:
    """Everything before the first change; reads much, changes nothing live."""

    def __init__(self, *, service: ConstitutionService, deployment: Deployment, gate: GateRunner) -> None:
        self._service = service
        self._deployment = deployment
        self._gate = gate

    @activity.defn
    @classified
    async def resolve_subject(self, x: ResolveInput) -> Subject: ...
    @activity.defn
    @classified
    async def verify_signatures(self, x: Subject) -> SignaturesResult: ...
    @activity.defn
    @classified
    async def run_regression_gate(self, x: Subject) -> GateResult: ...
    @activity.defn
    @classified
    async def check_decision(self, x: DecisionInput) -> DecisionResult: ...
    @activity.defn
    @classified
    async def check_rollback_decision(self, x: RollbackDecisionInput) -> DecisionResult: ...
    @activity.defn
    @classified
    async def check_order(self, x: OrderInput) -> OrderResult: ...
    @activity.defn
    @classified
    async def recheck(self, x: RecheckInput) -> Subject: ...
