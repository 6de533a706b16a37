"""A board member decides: look first, then sign. The content is read from sources that the signer can check.

The run under decision only says *which* bytes, change request and evidence it is about. Everything shown comes from
constitution-service by checksum (so the bytes are those), is checked against the signer's own trust policy and own
environment, and the signature binds exactly that. A forged run or service can at most be refused.
"""

import json as json_text
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import ValidationError

from constitution.api import EvidenceRecord
from constitution.checksum import checksum_of
from constitution.environment import Strategy, issues_of
from constitution.errors import (
    ConflictError,
    ConstitutionError,
    EvidenceError,
    NotApprovedError,
    NotYetError,
    UntrustedError,
)
from constitution.messages import DecideMessage, Status
from constitution.policy.diff import diff
from constitution.policy.document import Constitution, parse
from constitution.release import Kind, Previous
from constitution.trust.approval import ApprovalPredicate, BoardDecision
from constitution.trust.evidence_rules import Supported, problems
from constitution.trust.plan import Plan
from constitution.trust.trust_policy import Person, TrustPolicy
from constitution.watch.prediction import Prediction
from constitution_client.connections import run_named, runs, service_client, trust_policy, workflow_id_of
from constitution_client.keys import PersonKey
from constitution_client.output import one_line, progress, result
from constitution_client.prompting import confirm
from constitution_client.service import ConstitutionServiceClient
from constitution_client.settings import ClientSettings, UsageError, settings
from signatures.statements import sign_approval
from signatures.verify import verify_document


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The command line of ``approve`` and ``deny``."""

    decision: BoardDecision
    run: str
    key: Path
    reason: str
    checksum: str | None
    evidence: str | None
    update_id: str | None
    rollback_of: int | None
    valid_days: int
    trust: Path | None
    print_only: bool
    yes: bool
    wait: bool = True  # for the regression gate, whose evidence is what is signed


@dataclass(frozen=True, slots=True, kw_only=True)
class _Proposal:
    """What the board decides on: a document to update to, or a release to undo."""

    kind: Kind
    checksum: str | None
    change_request: str | None
    evidence: str | None
    rollback_of: int | None = None
    undone: str | None = None  # checksum of the release to undo, as the run says
    plan: Plan | None = None  # of an update: which run makes it live, where, when, and how it is watched


async def decide(order: Order, json: bool | None) -> None:
    """Show, ask, sign, send (or print).

    Raises:
        UntrustedError: the key is no board member's, or what would be approved does not verify.
        NotApprovedError: the signer wrote the change request themself.
        EvidenceError: the evidence is of other bytes, or reports a failure.
        NotYetError: the regression gate has not finished, and it is not waited for.
        ConflictError: the run has ended.
        MessageRefusedError: the run refused the decision, and says why.
    """
    configured = settings()
    policy = trust_policy(configured, order.trust)
    signer = PersonKey.read(order.key)
    person = signer.board_member(policy)
    workflow_id, proposal = await _proposal(order, configured, policy)
    async with service_client(configured) as service:
        review = _Review(service, policy, person, proposal, lenient=order.decision is BoardDecision.DENY)
        predicate = await review.predicate(order)
    for line in review.lines:
        progress(one_line(line))
    confirm(f"Sign this {'approval' if order.decision is BoardDecision.APPROVE else 'denial'}?", yes=order.yes)
    envelope = signer.sign(lambda tsk, password: sign_approval(predicate, tsk, password))
    message = DecideMessage(approval=envelope)
    if order.print_only:
        result(message.model_dump(mode="json"), [message.model_dump_json()], json)
        progress(f"send it to {workflow_id} under the name decide, as update or signal: its input is what was printed")
        return
    # The digest of what is sent as update id: sending the same decision twice runs it once.
    digest = checksum_of(json_text.dumps(envelope.model_dump(mode="json"), sort_keys=True).encode())
    answer = await (await runs(configured)).send(workflow_id, "decide", message, update_id=digest)
    result(
        {"workflow_id": workflow_id, "person": person.id, "decision": order.decision.value, "answer": answer},
        [f"{order.decision.value}: {answer}", f"next: constitution watch {shlex.quote(workflow_id)}"],
        json,
    )


async def _proposal(order: Order, configured: ClientSettings, policy: TrustPolicy) -> tuple[str, _Proposal]:
    workflow_id = workflow_id_of(order.run, configured)
    if order.rollback_of is not None:
        kind = Kind.ROLLBACK if order.checksum else Kind.WITHDRAW
        return workflow_id, _Proposal(
            kind=kind, checksum=order.checksum, change_request=None, evidence=None, rollback_of=order.rollback_of
        )
    if order.evidence is not None:
        if "/" in order.run or order.checksum is None:
            raise UsageError("deciding without Temporal takes CHANGE_REQUEST --checksum … --evidence …")
        return workflow_id, _Proposal(
            kind=Kind.UPDATE,
            checksum=order.checksum,
            change_request=order.run,
            evidence=order.evidence,
            plan=None if order.update_id is None else _by_hand(order.update_id, configured),
        )
    connected, workflow_id = await run_named(order.run, configured)
    status = await connected.status(workflow_id)
    if order.wait and status.workflow != "ConstitutionRollback":
        from constitution_client.follow import until_ready

        status = await until_ready(
            connected, workflow_id, lambda state: _missing(state, order.decision) is None, "the gate"
        )
    if status.environment not in {None, policy.environment}:
        raise UntrustedError(
            f"{workflow_id} is about {status.environment}, and this trust policy about {policy.environment}",
            hint="give the trust policy of that environment with --trust",
        )
    if status.workflow == "ConstitutionRollback":
        return workflow_id, _rollback_proposal(workflow_id, status)
    missing = _missing(status, order.decision)
    if missing is not None and status.outcome is not None:
        raise ConflictError(
            f"{workflow_id} has ended, {status.outcome.value}, and {missing}",
            hint=f"constitution status {shlex.quote(workflow_id)}",
        )
    if missing is not None or status.checksum is None or status.change_request is None:
        raise NotYetError(f"{workflow_id} {missing}", hint=f"constitution watch {shlex.quote(workflow_id)}")
    return workflow_id, _Proposal(
        kind=Kind.UPDATE,
        checksum=status.checksum,
        change_request=status.change_request,
        evidence=status.evidence,
        plan=status.plan,
    )


def _missing(status: Status, decision: BoardDecision) -> str | None:
    """Return the facts that an update's status still lacks for a decision."""
    if status.checksum is None or status.change_request is None:
        return "has not said yet what it is about"
    if decision is BoardDecision.APPROVE and (status.evidence is None or status.plan is None):
        return "has no evidence yet: the regression gate has not finished"
    return None


def _by_hand(update_id: str, configured: ClientSettings) -> Plan:
    """Return the plan of ``constitution load``: everywhere, at once, and watched by nobody."""
    try:
        return Plan(
            update_id=update_id,
            strategy="by-hand",
            watch=Strategy(watch_seconds=0),
            rings=configured.environment().rings(),
        )
    except ValidationError as error:
        raise UsageError("--update-id must be a lower-case UUID: uuidgen makes one", issues=issues_of(error)) from error


def _rollback_proposal(workflow_id: str, status: Status) -> _Proposal:
    """Read which release a rollback undoes from its workflow id; the review compares it with the release itself."""
    last = workflow_id.rpartition("/")[2]
    if not (last.isascii() and last.isdigit()):
        raise UsageError(
            f"{workflow_id} does not name the release that it undoes",
            hint="name it: --rollback-of with the generation, --checksum with what to restore",
        )
    if status.previous is None:
        raise NotYetError(
            f"{workflow_id} has not said yet what it undoes", hint=f"constitution status {shlex.quote(workflow_id)}"
        )
    return _Proposal(
        kind=Kind.ROLLBACK if status.checksum else Kind.WITHDRAW,
        checksum=status.checksum,
        change_request=None,
        evidence=None,
        rollback_of=int(last),
        undone=status.previous,
    )


class _Review:
    """Collects what the signer must see, and refuses to approve what does not verify; a denial only warns."""

    def __init__(
        self,
        service: ConstitutionServiceClient,
        policy: TrustPolicy,
        person: Person,
        proposal: _Proposal,
        *,
        lenient: bool,
    ) -> None:
        self._service = service
        self._policy = policy
        self._person = person
        self._proposal = proposal
        self._lenient = lenient
        self.lines: list[str] = []

    async def predicate(self, order: Order) -> ApprovalPredicate:
        """Return the predicate to sign; ``lines`` then say it in words."""
        proposal = self._proposal
        now = datetime.now(UTC)
        self.lines.append(f"you are {self._person.name} ({self._person.id}); you are about to sign:")
        self.lines.append(f"  decision       {order.decision.value}: {order.reason}")
        self.lines.append(f"  environment    {self._policy.environment}")
        document = None if proposal.checksum is None else await self._document(proposal.checksum, now)
        if proposal.kind is Kind.UPDATE:
            await self._change_request()
            await self._diff(document)
            await self._evidence(document)
            previous = document.previous if document else None
            if proposal.plan is not None:
                self.lines += [f"  {line}" for line in proposal.plan.lines(first=previous is None)]
        else:
            previous = await self._rollback(document)
        return ApprovalPredicate(
            kind=proposal.kind,
            environment=self._policy.environment,
            checksum=proposal.checksum,
            version=document.version if document else None,
            previous=previous,
            change_request=proposal.change_request,
            evidence=proposal.evidence,
            plan=proposal.plan,
            rollback_of=proposal.rollback_of,
            decision=order.decision,
            reason=order.reason,
            issued_at=now,
            expires_at=now + timedelta(days=order.valid_days),
        )

    async def _document(self, checksum: str, now: datetime) -> Constitution:
        data = await self._service.artifact(checksum)
        document = parse(data)
        self.lines.append(f"  constitution   {document.title}, version {document.version}")
        self.lines.append(f"  checksum       {checksum}")
        self.lines.append(f"  expires        {document.expires_at.isoformat()}")
        if document.environment != self._policy.environment:
            self._problem(
                UntrustedError(f"the document is for {document.environment}, not for {self._policy.environment}")
            )
        report = verify_document(data, await self._service.artifact_signatures(checksum), self._policy, now)
        try:
            report.require(self._policy.thresholds.document)
        except ConstitutionError as error:
            self._problem(error)
        self.lines.append(f"  signed by      {', '.join(report.signers) or 'nobody the trust policy knows'}")
        return document

    async def _change_request(self) -> None:
        if self._proposal.change_request is None:
            return
        record = await self._service.change_request(self._proposal.change_request)
        asked = record.request
        self.lines.append(f"  change request {asked.id} by {asked.author}: {asked.reason}")
        if asked.checksum != self._proposal.checksum:
            self._problem(NotApprovedError(f"{asked.id} asks for {asked.checksum}, not for {self._proposal.checksum}"))
        if asked.author == self._person.id:
            self._problem(
                NotApprovedError(
                    f"you wrote {asked.id} yourself: an author approves nothing of their own",
                    hint="ask another member of the board",
                )
            )

    async def _diff(self, document: Constitution | None) -> None:
        if document is None:
            return
        before = None
        if document.previous is not None:
            before = parse(await self._service.artifact(document.previous.checksum))
            self.lines.append(f"  replaces       {document.previous.version} {document.previous.checksum}")
        else:
            self.lines.append("  replaces       nothing: this is a first release")
        self.lines += [f"    {line}" for line in diff(before, document)]

    async def _evidence(self, document: Constitution | None) -> None:
        digest = self._proposal.evidence
        if digest is None:
            self.lines.append("  evidence       none yet")
            return
        record = await self._service.evidence(digest)
        self.lines.append(f"  evidence       {digest}")
        for suite in record.suites:
            counts = f"{suite.tests} tests, {suite.failures + suite.errors} failed, {suite.skipped} skipped"
            self.lines.append(f"    {suite.name}: {counts}, {suite.seconds:.1f} s")
        self._prediction(record)
        supported = Supported(
            environment=self._policy.environment,
            checksum=self._proposal.checksum,
            version=document.version if document else record.version,
            previous=document.previous.checksum if document and document.previous else None,
            change_request=self._proposal.change_request,
        )
        if issues := problems(record, supported):
            self._problem(EvidenceError(f"the evidence {digest} does not support this release", issues=list(issues)))

    def _prediction(self, record: EvidenceRecord) -> None:
        """Show the expected change: what the watch will tolerate, because the board signs it."""
        if record.prediction is None:
            return
        try:
            predicted = Prediction.model_validate(record.prediction)
        except ValidationError:
            self._problem(EvidenceError("the evidence holds a prediction that this program cannot read"))
            return
        self.lines.append("  expected change")
        self.lines += [f"    {line}" for line in predicted.lines()]

    async def _rollback(self, restored: Constitution | None) -> Previous | None:
        """Return the document that is undone; a withdrawal's statement is about it."""
        undone = await self._service.release(self._proposal.rollback_of or 0)
        self.lines.append(f"  undoes         generation {undone.generation}: {undone.version} {undone.checksum}")
        if self._proposal.undone not in {None, undone.checksum}:
            self._problem(
                UntrustedError(f"the run says that it undoes {self._proposal.undone}: that is another release")
            )
        if self._proposal.checksum is None:
            self.lines.append("  restores       NOTHING: the constitution is withdrawn and every request is denied")
        if undone.checksum is None or undone.version is None:
            return None
        self.lines += [f"    {line}" for line in diff(parse(await self._service.artifact(undone.checksum)), restored)]
        return Previous(version=undone.version, checksum=undone.checksum)

    def _problem(self, error: ConstitutionError) -> None:
        if not self._lenient:
            raise error
        self.lines.append(f"  warning        {error.message}")
