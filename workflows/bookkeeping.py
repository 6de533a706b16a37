"""The records of a run: channel, audit stream, legal archive. Nothing here ever undoes a release."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError

from constitution.api import AuditEvent, WorkflowRef
from constitution.errors import ConflictError, ForbiddenError
from workflows import policies
from workflows.board import Board
from workflows.calling import call
from workflows.status import SUMMARY, Journal, clipped
from workflows.stepping import Failure, StepFailedError, Stepper, StepSkippedError, explain

with workflow.unsafe.imports_passed_through():
    from activities.archive import Archived, ArchiveInput, ArchiveRelease, RefusalInput, RejectionInput, SiemInput
    from activities.audit import Audit
    from activities.broadcast import Announcement, Broadcast, Posted, ProgressInput
    from activities.publish import Proof
    from activities.update_plan import UpdatePlan


RefusedT = TypeVar("RefusedT", bound=RefusalInput)

NOT_TO_ARCHIVE = frozenset({ForbiddenError.code, ConflictError.code})
"""Why there is nothing to archive: it named nothing that is known, or went live."""


class Bookkeeping:
    """Writes the records of one run.

    Args:
        stepper: runs the activities.
        journal: the run's visible state; it shows the records that could not be written.
    """

    def __init__(self, stepper: Stepper, journal: Journal) -> None:
        self._stepper = stepper
        self._journal = journal
        self._audited = 0
        self._progress_at: Posted | None = None

    # once, or for as long as it takes

    async def announce(
        self, announcement: Announcement, summary: str, raises: frozenset[str] = frozenset()
    ) -> Posted | None:
        """Announce in the channel, for as long as it takes; None if a signed order skipped it.

        Raises:
            StepFailedError: a permanent failure of a code in ``raises``.
        """
        try:
            return await self._stepper.run(
                "broadcast",
                Broadcast.announce,
                announcement,
                policies.SLACK,
                summary=summary,
                persistent=True,
                raises=raises,
            )
        except StepSkippedError:
            return None

    async def announce_confirmed(self, announcement: Announcement, summary: str, *, final: bool) -> Posted | None:
        """Announce a confirmation as constitution-service has recorded it: the point of no return.

        Args:
            announcement: of the confirmed release.
            summary: one line for Temporal's UI.
            final: the release was looked at, and is confirmed; a record that is missing is then waited for.

        Raises:
            StepFailedError: none is recorded: the result of *confirm* was made up (``temporal activity complete``).
        """
        try:
            return await self.announce(announcement, summary, frozenset() if final else frozenset({ConflictError.code}))
        except StepFailedError as error:
            why = f"{error.failure.message}; the result of confirm was not the worker's"
            raise StepFailedError("confirm", Failure(error.failure.code, why, permanent=True)) from error

    async def archive(self, proof: Proof | None, *inputs: tuple[ArchiveInput, str]) -> Archived | None:
        """Put releases into the legal archive, in turn, each with its summary; None if a signed order skipped it.

        First the SIEM must have the event that ``proof`` names; without one (a run that was reset) that is not asked.
        """
        archived = None
        try:
            if proof is not None:
                await self._stepper.run(
                    "archive",
                    ArchiveRelease.confirm_siem,
                    SiemInput(environment=self._journal.status.environment or "", events=proof.events),
                    policies.SIEM,
                    summary="the SIEM's group has passed the event's offset",
                    persistent=True,
                    manages_state=False,
                )
            for argument, summary in inputs:
                archived = await self._stepper.run(
                    "archive",
                    ArchiveRelease.archive_release,
                    argument,
                    policies.GIT,
                    summary=summary,
                    persistent=True,
                )
        except StepSkippedError:
            return None
        return archived

    async def audit(self, activity: str, *, success: bool, message: str, details: dict[str, object]) -> None:
        """Put an event into the audit stream.

        Raises:
            ActivityError: constitution-service did not take it.
        """
        await call(
            Audit.audit,
            self._event(activity, success=success, message=message, details=details),
            policies.WRITE,
            f"audit: {activity}",
        )

    async def audit_outcome(
        self,
        step: str,
        activity: str,
        *,
        success: bool,
        message: str,
        details: dict[str, object] | None = None,
        deadline: timedelta | None = None,
        event_id: str | None = None,
    ) -> None:
        """Audit how the run ends, for as long as it takes or until ``deadline``: an outage must not change the end.

        ``event_id`` names what happened where several runs may come to tell it; the stream takes an id once.
        """
        event = self._event(activity, success=success, message=message, details=details or {})
        try:
            await self._stepper.run(
                step,
                Audit.audit,
                event if event_id is None else event.model_copy(update={"id": event_id}),
                policies.WRITE,
                summary=f"audit: {activity}",
                persistent=True,
                deadline=deadline,
            )
        except (StepFailedError, StepSkippedError) as error:
            self._journal.refused(f"{activity} not audited: {error}")

    async def progress(self, update: UpdatePlan, line: str, *, final: bool = False) -> None:
        """Edit the run's one progress message; best effort: only the outcome must be announced.

        The final one is tried again.
        """
        try:
            self._progress_at = await call(
                Broadcast.post_progress,
                ProgressInput(
                    update=update,
                    ts=self._progress_at.ts if self._progress_at else None,
                    channel_id=self._progress_at.channel_id if self._progress_at else None,
                    lines=(line,),
                ),
                policies.SLACK if final else policies.SLACK_ONCE,
                clipped(f"progress in {update.channel}: {line}", SUMMARY),
            )
        except ActivityError as error:
            self._journal.refused(f"progress not announced: {explain(error).message}")

    # a refusal: an outage must not keep a refused run open

    async def refused(
        self,
        announcement: Announcement,
        board: Board,
        *,
        what: str,
        summary: str,
        message: str,
        details: dict[str, object],
        version: str | None,
        checksum: str | None,
        change_request: str | None,
    ) -> None:
        """Announce, audit and archive a refused run; each until a deadline, visibly.

        A run that named no document and no change request is of nothing that could have gone live: no row.

        Args:
            announcement: for the channel.
            board: who denied, if anybody did.
            what: ``update`` or ``rollback``.
            summary: one line for Temporal's UI.
            message: why, for the audit stream.
            details: fields of the audit event.
            version: of the release that it was about; None where that was not known.
            checksum: of the same.
            change_request: of the same.
        """
        try:
            await self._stepper.run(
                "broadcast",
                Broadcast.announce,
                announcement,
                policies.SLACK,
                summary=summary,
                persistent=True,
                deadline=policies.AUDIT_DEADLINE,
            )
        except (StepFailedError, StepSkippedError) as error:
            self._journal.refused(f"not announced: {error}")
        await self.audit_outcome(
            "broadcast",
            f"{what}.rejected",
            success=False,
            message=message,
            details=details | ({"denied_by": board.denial[0]} if board.denial else {}),
            deadline=policies.AUDIT_DEADLINE,
        )
        status, me = self._journal.status, workflow.info()
        refusal = RefusalInput(
            environment=status.environment or "",
            update_id=status.update_id or me.run_id,
            what=what,
            version=version,
            checksum=checksum,
            change_request=change_request,
            reason=clipped(message, 4000),
            at=workflow.now(),
            workflow_id=me.workflow_id,
            run_id=me.run_id,
        )
        if board.denial is not None:
            person, envelope = board.denial
            signed = {"denied_by": person, "reason": board.denied or "", "decisions": (*board.envelopes, envelope)}
            denial = RejectionInput.model_validate(refusal.model_dump() | signed)
            await self._archive_refused(ArchiveRelease.archive_denial, denial, f"the denial of {person}")
        elif checksum or change_request:
            await self._archive_refused(ArchiveRelease.archive_refusal, refusal, "the refusal", NOT_TO_ARCHIVE)

    async def _archive_refused(
        self,
        activity: Callable[[ArchiveRelease, RefusedT], Awaitable[Archived]],
        argument: RefusedT,
        what: str,
        raises: frozenset[str] = frozenset(),
    ) -> None:
        """Put a refusal into the legal archive, or give up visibly."""
        try:
            await self._stepper.run(
                "archive",
                activity,
                argument,
                policies.GIT,
                summary=f"{what} into the legal archive",
                persistent=True,
                deadline=policies.AUDIT_DEADLINE,
                raises=raises,
            )
        except (StepFailedError, StepSkippedError) as error:
            self._journal.refused(f"{what} was not archived: {error}")

    async def message_refused(self, verb: str, code: str, why: str) -> None:
        """Record and audit a message that was refused."""
        self._journal.refused(f"{verb}: {why}")
        try:
            await self.audit(f"{verb}.refused", success=False, message=why, details={"code": code})
        except ActivityError as error:
            # The message is refused all the same, and visible in status and history; say that the stream lacks it.
            self._journal.refused(f"{verb}: refusal not audited: {explain(error).message}")

    def _event(self, activity: str, *, success: bool, message: str, details: dict[str, object]) -> AuditEvent:
        self._audited += 1
        info = workflow.info()
        return AuditEvent(
            id=f"{info.run_id}/{self._audited}/{activity}",
            update_id=self._journal.status.update_id or info.run_id,
            workflow=WorkflowRef(workflow_id=info.workflow_id, run_id=info.run_id),
            activity=activity,
            success=success,
            message=clipped(message, 4000),
            details=details,
        )
