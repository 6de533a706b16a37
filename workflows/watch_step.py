"""The watch of a release: whether it could see (before publish), what it saw, and a hold for a person.

A verdict becomes an action in ``_watch``, as the strategy declares it (``constitution.environment.Strategy.action``).
What confirms is what an assessor signed (constitution-service looks it up): a report that reaches the workflow may have
been made up.
"""

import functools
from collections.abc import Callable
from datetime import datetime, timedelta

from temporalio import workflow

from constitution.messages import Held, Phase
from constitution.release import Verdict
from constitution.trust.hold_rules import step_of_watch
from workflows import policies
from workflows.holds import Holds
from workflows.status import Journal, command
from workflows.stepping import Failure, StepFailedError, Stepper, StepSkippedError

with workflow.unsafe.imports_passed_through():
    from activities.publish import Published
    from activities.update_plan import UpdatePlan
    from activities.watch.watch import Watch, WatchInput, WatchReport, WatchTask


class WatchStep:
    """The step ``watch`` of one update.

    Args:
        stepper: runs it.
        journal: where it becomes visible.
        holds: what people say meanwhile.
    """

    def __init__(self, stepper: Stepper, journal: Journal, holds: Holds) -> None:
        self._stepper = stepper
        self._journal = journal
        self._holds = holds
        self.verdict: Verdict | None = None
        self.evidence: str | None = None
        """Digest of what the last watch stored."""
        self.cut_short = False
        """Whether a promote ended it before it could tell."""
        self.tenants: tuple[str, ...] = ()
        """Whose evaluations count; empty: everybody's."""
        self.test_evidence: str | None = None
        """Digest of what the board approved: its prediction is the expected change."""

    async def preflight(self, update: UpdatePlan) -> None:
        """Find out before publish whether the watch could see; where it could not, do as the strategy declares.

        Raises:
            StepFailedError: nothing is published blind.
        """
        strategy = update.strategy
        if update.first or strategy.watch_seconds == 0:
            return
        while True:
            look = await self._stepper.run(
                "watch",
                Watch.check_watch,
                WatchTask(
                    environment=update.environment,
                    update_id=update.update_id,
                    generation=None,
                    published_at=None,
                    strategy=strategy,
                    until_seconds=strategy.watch_seconds,
                    tenants=self.tenants,
                    evidence=self.test_evidence,
                ),
                policies.READ,
                summary="is the watched metric there, fresh, moving and calm",
                manages_state=False,
            )
            self._journal.step("watch", "pending", detail=look.power)
            if look.ready:
                return
            verdict = look.verdict or Verdict.CANNOT_TELL
            action = strategy.action(verdict, extended=False)
            if action == "continue":
                return
            failure = Failure(verdict.value, f"not published blind: {look.detail}", permanent=True)
            if not (action == "hold" and await self._stepper.ask("watch", failure)):
                raise StepFailedError("watch", failure)

    async def watch(self, update: UpdatePlan, published: Published) -> None:
        """Watch the release until it may be confirmed.

        Raises:
            StepFailedError: the strategy rolls it back, or nobody ended a hold in time.
            StepInterruptedError: abort or cancel.
        """
        strategy = update.strategy
        if update.first or strategy.watch_seconds == 0:
            self.saw(Verdict.NOT_APPLICABLE if update.first else Verdict.NOT_WATCHED)
            self._journal.step("watch", "done", detail=self.verdict.value if self.verdict else "")
        else:
            await self._watch(update, published)
        await self._wait_while_held(update)

    def forget_evidence(self) -> None:
        """Watch anew: no evidence backs the report."""
        self.evidence = None
        self._holds.forget_answers()

    def saw(self, verdict: Verdict) -> None:
        """Take a verdict."""
        self.verdict = verdict
        self._journal.verdict(verdict)

    async def _watch(self, update: UpdatePlan, published: Published) -> None:
        seconds, extended = float(update.strategy.watch_seconds), False
        while True:
            report = await self._watch_for(update, published, seconds)
            if report is None:
                return
            action = update.strategy.action(report.verdict, extended=extended)
            if action == "extend_once":
                extended = True
                seconds += update.strategy.watch_seconds
            elif action == "rollback":
                self._journal.step("watch", "failed", detail=report.detail, error=report.detail)
                raise StepFailedError("watch", Failure(report.verdict.value, report.detail, permanent=True))
            else:
                if action == "hold":
                    self._holds.of_watch(_held(report))
                if self._holds.first is None:
                    self._journal.step("watch", "done", detail=report.detail)
                else:
                    await self._hold(update, published, report)
                return

    async def _watch_for(
        self, update: UpdatePlan, published: Published, seconds: float, until: Callable[[], bool] | None = None
    ) -> WatchReport | None:
        """Watch until ``seconds`` after the publish; None when somebody promoted meanwhile, or ``until`` came true."""
        holds = self._holds
        try:
            report = await self._stepper.run(
                "watch",
                Watch.watch_metric,
                WatchInput(environment=update.environment, generation=published.generation, until_seconds=seconds),
                policies.watch(seconds),
                summary=f"watch policy_engine_evaluations_total for {seconds:.0f} s",
                until=until or (lambda: holds.promoted is not None),
                manages_state=False,
            )
        except StepSkippedError:
            if until is None:
                self.saw(Verdict.CANNOT_TELL)
                self.cut_short = True
                self._journal.step("watch", "done", detail=f"promoted by {holds.promoted} before the watch had ended")
            return None
        self.saw(report.verdict)
        self.cut_short = False
        self.evidence = report.evidence
        return report

    async def _hold(self, update: UpdatePlan, published: Published, report: WatchReport) -> None:
        """Wait for a person while the watch goes on."""
        holds, deadline = self._holds, workflow.now() + timedelta(seconds=update.deadlines.hold)
        # One watch for the whole hold: slices of a minute make 10,000 events a day, and an alarm that is only observed
        # ends each slice at once.
        seen: WatchReport | None = report
        alarmed = False
        while (held := holds.first) is not None and not holds.released():
            if seen is not None and seen.verdict is Verdict.ANOMALY and not alarmed:
                alarmed = True
                action = update.strategy.action(seen.verdict, extended=True)
                if action == "rollback":
                    raise StepFailedError("watch", Failure(Verdict.ANOMALY.value, seen.detail, permanent=True))
                if action == "hold":
                    holds.of_watch(_held(seen))
                    continue
            if workflow.now() >= deadline:
                raise _nobody_ended(held)
            if alarmed:
                await self._wait(held, deadline)
                continue
            self._journal.waiting("watch", _a_person(held, deadline), command("resume"))
            seconds = (deadline - published.effective_at).total_seconds()
            changed = functools.partial(holds.changed_since, held)
            seen = await self._watch_for(update, published, seconds, until=changed)
        self._journal.set(waiting_for="", next_command="", phase=Phase.RUNNING)
        self._journal.step(
            "watch", "done", detail=f"{self._ended_by}; the watch had said {report.verdict.value}: {report.detail}"
        )

    async def _wait_while_held(self, update: UpdatePlan) -> None:
        """Keep the promise of ``hold`` also where nothing is watched, or where it came after the watch's end."""
        holds, deadline = self._holds, workflow.now() + timedelta(seconds=update.deadlines.hold)
        if holds.released():
            return
        while (held := holds.first) is not None and not holds.released():
            await self._wait(held, deadline)
        self._journal.step("watch", "done", detail=self._ended_by)

    async def _wait(self, held: Held, deadline: datetime) -> None:
        """Wait until somebody ends what is held first.

        Raises:
            StepFailedError: nobody did before the deadline.
        """
        if not await self._stepper.wait(
            "watch",
            functools.partial(self._holds.changed_since, held),
            for_=_a_person(held, deadline),
            next_command=command("resume"),
            deadline=deadline - workflow.now(),
        ):
            raise _nobody_ended(held)

    @property
    def _ended_by(self) -> str:
        holds = self._holds
        return f"promoted by {holds.promoted}" if holds.promoted else f"resumed by {holds.resumed}"


def _held(report: WatchReport) -> Held:
    return Held(name=step_of_watch(report.evidence), why=f"the watch says {report.verdict.value}: {report.detail}")


def _a_person(held: Held, deadline: datetime) -> str:
    return f"a person to resume, promote or abort ({held.why}) until {deadline.isoformat(timespec='seconds')}"


def _nobody_ended(held: Held) -> StepFailedError:
    return StepFailedError("watch", Failure("hold-deadline", f"nobody ended the hold: {held.why}", permanent=True))
