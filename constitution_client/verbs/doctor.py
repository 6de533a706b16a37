"""The verb doctor: is everything as it should be? The worker looks, because it alone may read every system."""

import asyncio
import os
import shlex
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from constitution_client.importable import require_importable
from constitution_client.output import JsonOption, progress, result

if TYPE_CHECKING:
    from constitution.reconciliation import Finding, ReconcileReport, ReconcileRequest
    from constitution_client.settings import ClientSettings


NEEDED = (
    "deploy.installation",
    "asyncpg",
    "confluent_kafka",
    "obstore",
    "redis",
    "prometheus_api_client",
    "temporalio",
)
ATTEMPTS = 2  # of one workflow task; a worker that was restarted in its middle makes a second one necessary


def doctor(
    *,
    repair: Annotated[
        bool, typer.Option("--repair", help="Repair what is safe to repair, and finish the work of dead runs.")
    ] = False,
    closed_seconds: Annotated[
        float, typer.Option("--closed-seconds", min=1, help="How long a run must have been closed to be judged.")
    ] = 60,
    timeout: Annotated[int, typer.Option("--timeout", min=1, help="Seconds to wait for the worker's answer.")] = 60,
    deployment: Annotated[
        bool,
        typer.Option("--deployment", help="Check the installation instead: servers, rights, topics, schema, keys."),
    ] = False,
    json: JsonOption = None,
) -> None:
    """Compare Postgres, Redis, Kafka, store, archive, targets, Slack and runs; changes nothing without --repair.

    Names each difference, where it is and what to type. Exit 0: all well; 1: something is left to do. With --deployment
    also 3: nothing is missing as far as could be told.
    """
    if deployment:
        from constitution_client.settings import UsageError

        if repair:
            raise UsageError("--deployment repairs nothing; it names the commands that do")
        _installation(json)
    raise typer.Exit(asyncio.run(_doctor(repair=repair, closed_seconds=closed_seconds, timeout=timeout, json=json)))


def _installation(json: bool | None) -> None:
    """Replace this process by the check of an installation, which needs the drivers of every server."""
    from constitution_client.settings import variables

    require_importable(
        NEEDED,
        "this needs the drivers of every server",
        hint="role client doctor --deployment  # in the image, or in a checkout after: make sync",
    )
    arguments = [sys.executable, "-m", "deploy.installation"]
    if json is not None:
        arguments.append("--json" if json else "--text")
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.execve(sys.executable, arguments, variables())  # noqa: S606 - our own module


async def _doctor(*, repair: bool, closed_seconds: float, timeout: int, json: bool | None) -> int:  # noqa: ASYNC109 - typed by a person, becomes the run's own
    from constitution.reconciliation import ReconcileRequest
    from constitution_client.settings import settings

    configured = settings()
    findings = [*_root(configured), *await _service(configured)]
    request = ReconcileRequest(repair=repair, closed_seconds=closed_seconds)
    report = await _worker(configured, request, timeout, findings)
    checked = ["constitution-service", *(report.checked if report is not None else ())]
    unchecked = list(report.unchecked) if report is not None else ["everything that only the worker can look at"]
    known = {(finding.code, finding.where) for finding in report.findings} if report is not None else set()
    findings += report.findings if report is not None else ()
    asked = await _temporal(configured)
    if asked is None:
        unchecked.append("workers and workflow tasks: Temporal does not answer")
    else:
        checked.append("workers and workflow tasks")
        findings += [found for found in asked if (found.code, found.where) not in known]
    left = [finding for finding in findings if not finding.repaired]
    result(
        {
            "well": not left,
            "checked": checked,
            "unchecked": unchecked,
            "findings": [finding.model_dump() for finding in findings],
        },
        [
            *(line for finding in findings for line in _lines(finding)),
            *(f"not looked at: {what}" for what in unchecked),
            _summary(len(checked), len(left), len(unchecked)),
        ],
        json,
    )
    return 1 if left else 0


async def _temporal(configured: "ClientSettings") -> "list[Finding] | None":
    """Ask Temporal itself what no worker can say of itself: who polls the queue, and whose workflow task fails.

    Temporal's own report (a search attribute) comes after five failed tasks, a minute later. None: no answer.
    """
    from constitution.errors import ConstitutionError
    from constitution.reconciliation import Finding
    from constitution_client.connections import runs

    try:
        connected = await runs(configured)
        workers = await connected.workers()
        opened = await connected.open_runs(("ConstitutionUpdate", "ConstitutionRollback", "ConstitutionGuard"))
        attempts = {run[0]: await connected.failing(run[0]) for run in opened}
    except ConstitutionError:
        return None
    found = [
        Finding(
            code="run-stalls",
            where=workflow_id,
            message=f"its workflow task fails again and again ({attempt} times now), which is a defect of ours",
            command=f"temporal workflow describe --workflow-id {shlex.quote(workflow_id)}",
        )
        for workflow_id, attempt in attempts.items()
        if attempt > ATTEMPTS
    ]
    stacks = {identity.partition("#")[2].partition("@")[0] for identity in workers}
    if len(stacks) > 1:
        found.append(
            Finding(
                code="workers-of-two-stacks",
                where="task queue",
                message=f"workers of {len(stacks)} deployments take each other's steps: {', '.join(workers)}",
                command="make down  # in the other checkout; or give each its own NAMESPACE",
            )
        )
    return found


def _root(configured: "ClientSettings") -> "list[Finding]":
    """Look at the trust policy that is configured here: is a review of its Sigstore root overdue?"""
    from datetime import UTC, datetime

    from constitution.errors import ConstitutionError
    from constitution.reconciliation import Finding
    from constitution.trust.root_review import overdue_root
    from constitution_client.connections import trust_policy

    if configured.trust_file is None and configured.environment_file is None:
        return []
    try:
        policy = trust_policy(configured)
    except ConstitutionError as error:  # the other places are looked at all the same
        return [
            Finding(code="cannot-look", where="trust policy", message=error.message, command="constitution trust show")
        ]
    overdue = overdue_root(policy, datetime.now(UTC).date())
    if overdue is None:
        return []
    command = "constitution trust show  # then docs/trust-policy.md: how to review the root, and to set the next day"
    return [Finding(code="root-review", where="trust.toml", message=overdue, command=command)]


async def _service(configured: "ClientSettings") -> "list[Finding]":
    """Ask constitution-service itself: it answers also when Temporal and worker do not."""
    from constitution.errors import ConstitutionError
    from constitution.reconciliation import Finding
    from constitution_client.connections import service_client

    try:
        async with service_client(configured) as service:
            ready = await service.ready()
    except ConstitutionError as error:
        return [Finding(code="cannot-look", where="constitution-service", message=error.message, command="make status")]
    return [
        Finding(
            code="trust-refused" if name == "trust" else "cannot-look",
            where=f"constitution-service: {name}",
            message=state,
            command="constitution trust show  # then docs/keys.md" if name == "trust" else "make status",
        )
        for name, state in sorted(ready.checks.items())
        if state != "ok"
    ]


async def _worker(
    configured: "ClientSettings",
    request: "ReconcileRequest",
    timeout: int,  # noqa: ASYNC109 - typed by a person, becomes the run's own
    findings: "list[Finding]",
) -> "ReconcileReport | None":
    """Have the worker look, by a run of its own; a failure to answer is a finding."""
    from datetime import timedelta
    from uuid import uuid4

    from constitution.errors import ConstitutionError
    from constitution.reconciliation import RECONCILE, Finding, ReconcileReport
    from constitution_client.connections import runs

    identity = f"{configured.names.reconcile_id(configured.environment_name())}/doctor/{uuid4()}"
    try:
        temporal = await runs(configured)
        run_id = await temporal.start(RECONCILE, request, identity, timeout=timedelta(seconds=timeout))
        progress(f"the worker looks: {identity}")
        return ReconcileReport.model_validate(await temporal.result(identity, run_id))
    except ConstitutionError as error:
        findings.append(
            Finding(
                code="cannot-look",
                where="Temporal and worker",
                message=error.message,
                command="make status; make worker",
            )
        )
        return None


def _lines(finding: "Finding") -> list[str]:
    after = f"  repaired: {finding.repaired}" if finding.repaired else f"  next: {finding.command}"
    return [f"{finding.code}  {finding.where}", f"  {finding.message}", after]


def _summary(checked: int, left: int, unchecked: int) -> str:
    skipped = f", {unchecked} not" if unchecked else ""
    return f"{checked} places looked at{skipped}; " + (
        f"{left} findings are left" if left else "nothing wrong was found" if unchecked else "all well"
    )


VERBS = {"doctor": doctor}
