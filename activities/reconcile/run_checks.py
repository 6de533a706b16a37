"""Reconciliation of the runs: who waits for a person, whose approvals have expired; and the report of all findings."""

import shlex
from datetime import UTC, datetime

from temporalio import activity

from activities.decisions import DecisionResult
from activities.failures import classified
from activities.reconcile.ports import RunSearch
from activities.reconcile.target_checks import Found
from constitution.messages import Phase
from constitution.model import Model
from constitution.reconciliation import CODES, Finding

DECISIONS = frozenset({"check_decision", "check_rollback_decision"})
APPROVE = "approve"


class RunsInput(Model):
    """Which environment."""

    environment: str


class FindingsInput(Model):
    """What was found."""

    environment: str
    findings: tuple[Finding, ...]
    drifting: int


class RunChecks:
    """Looks at open runs; changes nothing."""

    def __init__(self, *, search: RunSearch) -> None:
        self._search = search

    @activity.defn
    @classified
    async def check_runs(self, x: RunsInput) -> Found:
        """Find runs that need a person, stall, or wait with an approval that has expired. Only reads."""
        activity.logger.debug("runs_checked", extra={"environment": x.environment})
        findings = [
            Finding(
                code="needs-a-person",
                where=run["workflow_id"],
                message=f"{run['type']} has spent its retries and waits for a person",
                command=f"constitution status {shlex.quote(run['workflow_id'])}",
            )
            for run in await self._search.in_phase(Phase.NEEDS_A_PERSON.value)
        ]
        findings += [
            Finding(
                code="run-stalls",
                where=run["workflow_id"],
                message=f"{run['type']}: its workflow task fails again and again, which is a defect of ours",
                command=f"temporal workflow describe --workflow-id {shlex.quote(run['workflow_id'])}",
            )
            for run in await self._search.stalled()
        ]
        findings += [
            Finding(
                code="activity-paused",
                where=run["workflow_id"],
                message=f"an activity of this {run['type']} was paused by hand; its step is undone at its deadline",
                command=f"temporal workflow describe --workflow-id {shlex.quote(run['workflow_id'])}",
            )
            for run in await self._search.paused()
        ]
        for run in await self._search.in_phase(Phase.WAITING.value):
            findings += await self._expired(run["workflow_id"], run["run_id"])
        return Found(findings=tuple(findings))

    @activity.defn
    @classified
    async def report_findings(self, x: FindingsInput) -> None:
        """Log what was found, and set the metrics. Twice, or late: the newest look counts."""
        for finding in x.findings:
            activity.logger.warning(
                "finding", extra={"environment": x.environment, **finding.model_dump(exclude={"message"})}
            )
        meter = activity.metric_meter().with_additional_attributes({"environment": x.environment})
        gauge = meter.create_gauge("constitution_findings", "What reconciliation finds wrong now, by code.")
        for code in CODES:
            open_now = sum(f.stands_for for f in x.findings if f.code == code and not f.repaired)
            gauge.set(open_now, {"code": code})
        repaired = meter.create_counter("constitution_repairs", "What reconciliation has repaired, by code.")
        for finding in x.findings:
            if finding.repaired:
                repaired.add(1, {"code": finding.code})
        drift = meter.create_gauge("constitution_drifting_targets", "Targets that left a release of the last 72 h.")
        drift.set(x.drifting)
        last = meter.create_gauge("constitution_reconciled_seconds", "When reconciliation last came to its end.", "s")
        last.set(int(datetime.now(UTC).timestamp()))

    async def _expired(self, workflow_id: str, run_id: str) -> list[Finding]:
        now = datetime.now(UTC)
        answers = [
            DecisionResult.model_validate_json(raw)
            for raw in await self._search.results(workflow_id, run_id, DECISIONS)
        ]
        return [
            Finding(
                code="approval-expired",
                where=f"{workflow_id}, {answer.person}",
                message=f"it waits, and this approval expired at {answer.expires_at.isoformat(timespec='seconds')}",
                command=f"constitution abort {shlex.quote(workflow_id)} --reason 'approval expired'  # start it again",
            )
            for answer in answers
            if answer.decision == APPROVE and answer.expires_at <= now
        ]
