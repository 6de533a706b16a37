"""The content of a board member's decision, in words and as a statement, from sources that the signer can check.

Everything shown comes from constitution-service by checksum (so the bytes are those) and is checked against the
signer's own trust policy.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

from constitution.api import EvidenceRecord, ValidateResult
from constitution.errors import ConstitutionError, EvidenceError, NotApprovedError, UntrustedError
from constitution.policy.diff import diff
from constitution.policy.document import Constitution, parse
from constitution.release import Kind, Previous
from constitution.trust.approval import ApprovalPredicate, BoardDecision
from constitution.trust.evidence_rules import Supported, problems
from constitution.trust.plan import Plan
from constitution.trust.trust_policy import Person, TrustPolicy
from constitution.watch.prediction import Prediction
from constitution_client.service import ConstitutionServiceClient
from constitution_client.signing import Signing
from signatures.verify import verify_document


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What the board decides on: a document to update to, or a release to undo."""

    kind: Kind
    checksum: str | None
    change_request: str | None
    evidence: str | None
    rollback_of: int | None = None
    undone: str | None = None  # checksum of the release to undo, as the run says
    plan: Plan | None = None  # of an update: which run makes it live, where, when, and how it is watched


class Review:
    """Collects what the signer must see, and refuses to approve what does not verify; a denial only warns."""

    def __init__(
        self,
        service: ConstitutionServiceClient,
        policy: TrustPolicy,
        signing: Signing,
        proposal: Proposal,
        *,
        lenient: bool,
    ) -> None:
        self._service = service
        self._policy = policy
        self._signing = signing
        self._person: Person | None = signing.person
        self._proposal = proposal
        self._lenient = lenient
        self.lines: list[str] = []

    async def predicate(
        self, decision: BoardDecision, reason: str | None, valid: timedelta, stated: ApprovalPredicate | None
    ) -> ApprovalPredicate:
        """Return the predicate to sign; ``lines`` then say it in words.

        Args:
            decision: approve or deny.
            reason: why; None: what ``stated`` says, else "approved".
            valid: how long it counts.
            stated: what has been signed elsewhere; its reason and times are taken from it, and nothing else.
        """
        proposal = self._proposal
        now = datetime.now(UTC)
        issued_at, expires_at = (now, now + valid) if stated is None else (stated.issued_at, stated.expires_at)
        if reason is None:
            reason = "approved" if stated is None else stated.reason
        self.lines.append(self._signing.begins)
        self.lines.append(f"  decision       {decision.value}: {reason}")
        self.lines.append(f"  environment    {self._policy.environment}")
        document = None if proposal.checksum is None else await self._document(proposal.checksum, now)
        if proposal.kind in {Kind.UPDATE, Kind.REISSUE}:
            await self._change_request()
            await self._diff(document)
        if proposal.kind is Kind.UPDATE:
            await self._evidence(document)
        if proposal.kind in {Kind.UPDATE, Kind.REISSUE}:
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
            decision=decision,
            reason=reason,
            issued_at=issued_at,
            expires_at=expires_at,
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
            first = document.previous is None
            report.require(self._policy.thresholds.for_document(self._proposal.kind, first=first))
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
        if self._person is not None and asked.author == self._person.id:
            self._problem(
                NotApprovedError(
                    f"you wrote {asked.id} yourself: an author approves nothing of their own",
                    hint="ask another member of the board",
                )
            )

    async def _harmful(self, checksum: str) -> None:
        """Show what was undone because of these bytes or rules: in the words in which a load is refused."""
        self.lines += [f"    {line}" for line in harmful_lines(await self._service.validate(checksum))]

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
        await self._harmful(self._proposal.checksum or "")

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


def harmful_lines(answer: ValidateResult) -> list[str]:
    """Return in words what was undone as harmful for what a document says, and whose overrides let it come again."""
    if answer.harmful is None:
        return []
    lines = [f"UNDONE BEFORE: {answer.harmful.message}"]
    return [*lines, f"reissued by {', '.join(answer.reissued_by)}"] if answer.reissued_by else lines
