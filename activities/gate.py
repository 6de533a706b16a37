"""Preconditions, the regression gate: both suites on these very bytes, and signed evidence of what they found."""

from datetime import timedelta

from temporalio import activity

from activities import same_rules
from activities.attesting import Attester
from activities.documents import update_document
from activities.failures import classified
from activities.keys import require_environment
from activities.ports import ActivityConfig, ConstitutionService, GateRunner
from constitution.api import EvidenceRecord
from constitution.checksum import Checksum
from constitution.model import Model
from constitution.policy import document as documents
from constitution.policy.diff import diff
from constitution.release import UpdateId
from constitution.trust.attestation import GatePredicate


class GateInput(Model):
    """What to run the gate on. ``document`` names a file of the inbox while the store has not got the bytes.

    ``change_request`` and ``update_id`` say for whom: they stand in the evidence, and change nothing of what is found.
    """

    environment: str
    checksum: Checksum
    change_request: str
    update_id: UpdateId
    document: str | None = None


class GateResult(Model):
    """The regression gate passed: evidence digest, one line per suite, the readable diff, and how long it took."""

    evidence: Checksum
    suites: tuple[str, ...]
    diff: tuple[str, ...]
    seconds: float


class Gate:
    """Runs the gate; stores evidence and attestation; changes nothing live."""

    def __init__(
        self, *, service: ConstitutionService, config: ActivityConfig, gate: GateRunner, assessor: Attester
    ) -> None:
        self._service = service
        self._config = config
        self._gate = gate
        self._assessor = assessor

    @activity.defn
    @classified
    async def run_regression_gate(self, x: GateInput) -> GateResult:
        """Run ``policy`` and ``chaos`` on these very bytes, keep the evidence, and sign it.

        Heartbeats at least once a second; a cancel kills the gate's processes before this returns.
        Twice, or killed half-way: each run has folders, ports and processes of its own, and evidence is
        content-addressed. A second run measures other times, so it gives another digest: board decisions name the one
        that the workflow recorded. Late, after its caller died: evidence more that nobody names.

        Raises:
            EvidenceError: the gate refuses the draft; every failing case is listed.
        """
        require_environment(self._config, x.environment)
        document = await update_document(self._service, self._config, x.checksum, x.document)
        draft = documents.parse(document)
        previous = await self._service.artifact(draft.previous.checksum) if draft.previous else None
        report = await self._gate(
            gate_directory=self._config.gate_directory,
            document=document,
            previous=previous,
            deadline=timedelta(seconds=self._config.environment.deadlines.gate),
            heartbeat=activity.heartbeat,
            scratch=self._config.scratch_directory,
        )
        suites = tuple([suite.evidence(await self._service.put_blob(suite.junit)) for suite in report.suites])
        report.require()
        said = await same_rules.named(self._service, draft, x.checksum, previous)
        changes = (*said, *diff(documents.parse(previous) if previous else None, draft))
        record = EvidenceRecord(
            environment=x.environment,
            checksum=x.checksum,
            version=draft.version,
            previous=draft.previous.checksum if draft.previous else None,
            change_request=x.change_request,
            gate_digest=report.gate_digest,
            suites=suites,
            diff=changes,
            update_id=x.update_id,
        )
        evidence = await self._service.put_evidence(record)
        await self._assessor.attest(GatePredicate.of(record, evidence))
        return GateResult(
            evidence=evidence,
            suites=tuple(f"{s.name}: {s.tests} passed in {s.seconds:.1f} s" for s in suites),
            diff=changes,
            seconds=report.seconds,
        )
