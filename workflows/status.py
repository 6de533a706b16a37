"""The visible state of a run: its steps, what it waits for, and the command to type next.

One object serves the query ``status``, the live details in Temporal's UI (Markdown) and the search attributes, so
that the three can never disagree.
"""

import shlex
from collections.abc import Sequence
from typing import Any, Literal

from temporalio import workflow
from temporalio.common import SearchAttributeKey, SearchAttributeUpdate

from constitution.messages import Outcome, Phase, Status, StepStatus
from constitution.release import Verdict

ENVIRONMENT = SearchAttributeKey.for_keyword("ConstitutionEnvironment")
VERSION = SearchAttributeKey.for_keyword("ConstitutionVersion")
CHECKSUM = SearchAttributeKey.for_keyword("ConstitutionChecksum")
GENERATION = SearchAttributeKey.for_int("ConstitutionGeneration")
PHASE = SearchAttributeKey.for_keyword("ConstitutionPhase")
OUTCOME = SearchAttributeKey.for_keyword("ConstitutionOutcome")
UPDATE_ID = SearchAttributeKey.for_keyword("ConstitutionUpdateId")
VERDICT = SearchAttributeKey.for_keyword("ConstitutionVerdict")
SEARCH_ATTRIBUTES = (ENVIRONMENT, VERSION, CHECKSUM, GENERATION, PHASE, OUTCOME, UPDATE_ID, VERDICT)
"""Must be registered in the namespace: one that is not makes each workflow task fail for ever."""

State = Literal["pending", "running", "waiting", "done", "failed", "skipped", "undone"]
_MARK: dict[str, str] = {
    "pending": "·",
    "running": "▶",
    "waiting": "…",
    "done": "✓",
    "failed": "✗",
    "skipped": "→",
    "undone": "↩",
}


LONGEST = 2_000
"""Characters of any one text: errors of other systems may be long, and a status must stay far below 2 MiB."""


SUMMARY = 200
"""Bytes of a summary in Temporal's UI that is one line of a list; Temporal takes 400. Source: static_summary."""


def clipped(text: str, limit: int) -> str:
    """Return text of at most ``limit`` characters; one that is cut says so, at the end of a word."""
    if len(text) <= limit:
        return text
    kept = text[: limit - 1]
    return (kept.rpartition(" ")[0] or kept).rstrip(" ,;:") + "…"


def command(verb: str, *options: str) -> str:
    """Return a command about this run; its starter chose its id, and a shell will read it."""
    return " ".join(["constitution", verb, shlex.quote(workflow.info().workflow_id), *options])


class Journal:
    """The visible state of one run. Deterministic: reads ``workflow.now()`` only.

    Args:
        name: workflow type.
        steps: the runbook's steps, in its order.
    """

    def __init__(self, name: str, steps: Sequence[str]) -> None:
        self._status = Status(workflow=name, phase=Phase.RUNNING, steps=tuple(StepStatus(name=step) for step in steps))
        self._shown_phase: Phase | None = None
        self._before_wait: dict[str, str] = {}

    @property
    def status(self) -> Status:
        """The state as it is now."""
        return self._status

    def set(self, **fields: object) -> None:
        """Change fields of the status by name, then show them."""
        self._status = self._status.model_copy(update=fields)
        self._show()

    def step(self, name: str, state: State, detail: str | None = None, error: str | None = None) -> None:
        """Move a step to a state; an error is kept as first and last error."""
        now = workflow.now()

        def moved(step: StepStatus) -> StepStatus:
            if step.name != name:
                return step
            changes: dict[str, object] = {"state": state}
            if state == "waiting":
                self._before_wait.setdefault(name, step.detail)
            elif detail is None and name in self._before_wait:  # what it waited for is over
                changes["detail"] = self._before_wait[name]
            if state != "waiting":
                self._before_wait.pop(name, None)
            if detail is not None:
                changes["detail"] = clipped(detail, LONGEST)
            if state in ("running", "waiting") and step.started_at is None:
                changes["started_at"] = now
            if state in ("done", "failed", "skipped", "undone"):
                changes["ended_at"] = now
            if error is not None:
                changes["first_error"] = step.first_error or clipped(error, LONGEST)
                changes["last_error"] = clipped(error, LONGEST)
            return step.model_copy(update=changes)

        self.set(step=name, steps=tuple(moved(step) for step in self._status.steps))

    def waiting(self, step: str, for_: str, next_command: str, phase: Phase = Phase.WAITING) -> None:
        """Say on whom or what the run waits, and what that person may type."""
        self.set(waiting_for=clipped(for_, LONGEST), next_command=next_command, phase=phase)
        self.step(step, "waiting", detail=for_)

    def going_on(self, step: str, phase: Phase) -> None:
        """End a wait."""
        self.set(waiting_for="", next_command="", phase=phase)
        self.step(step, "running")

    def refused(self, what: str) -> None:
        """Remember a refused message; the newest 20 are kept."""
        self.set(refusals=(*self._status.refusals, clipped(what, LONGEST))[-20:])

    def verdict(self, verdict: Verdict) -> None:
        """Record the watch's verdict."""
        self.set(verdict=verdict)
        workflow.upsert_search_attributes([VERDICT.value_set(verdict.value)])

    def close(self, outcome: Outcome, detail: str) -> None:
        """Record how the run ended."""
        self.settle()
        self.set(
            outcome=outcome,
            outcome_detail=clipped(detail, LONGEST),
            phase=Phase.CLOSED,
            waiting_for="",
            next_command="",
        )
        workflow.upsert_search_attributes([OUTCOME.value_set(outcome.value)])

    def settle(self) -> None:
        """Show no step of a run that ends as running or waiting: nothing will ever end it."""
        at = self._status.step
        for step in self._status.steps:
            if step.state in ("running", "waiting"):
                self.step(step.name, "skipped", detail="not finished when the run ended")
        self.set(step=at)

    def identify(self) -> None:
        """Make the run findable by what it is about."""
        status = self._status
        updates: list[SearchAttributeUpdate[Any]] = []
        if status.environment:
            updates.append(ENVIRONMENT.value_set(status.environment))
        if status.update_id:
            updates.append(UPDATE_ID.value_set(status.update_id))
        if status.version:
            updates.append(VERSION.value_set(status.version))
        if status.checksum:
            updates.append(CHECKSUM.value_set(status.checksum))
        if status.generation is not None:
            updates.append(GENERATION.value_set(status.generation))
        if updates:
            workflow.upsert_search_attributes(updates)

    def _show(self) -> None:
        status = self._status
        if status.phase != self._shown_phase:
            shown: list[SearchAttributeUpdate[Any]] = [PHASE.value_set(status.phase.value)]
            if self._shown_phase is None:  # a run's starter can give it an outcome, and its guard goes by that
                shown.append(OUTCOME.value_unset())
            self._shown_phase = status.phase
            workflow.upsert_search_attributes(shown)
        lines = [f"**{status.phase.value}**" + (f": {_plain(status.outcome_detail)}" if status.outcome_detail else "")]
        if status.version:
            generation = f", generation {status.generation}" if status.generation else ""
            lines.append(f"Version {status.version}{generation} in `{status.environment}`")
        if status.strategy:
            lines.append(f"Watch: {_plain(status.strategy)}")
        lines += [f"Expected change: {_plain(line)}" for line in status.predicted]
        if status.waiting_for:
            lines.append(f"Waits for: {_plain(status.waiting_for)}")
        if status.next_command:
            lines.append(f"Next: {_code(status.next_command)}")
        lines.append("")
        lines += [
            f"- {_MARK[step.state]} {step.name}" + (f": {_plain(step.detail)}" if step.detail else "")
            for step in status.steps
        ]
        lines += [f"- refused: {_plain(refusal)}" for refusal in status.refusals[-5:]]
        workflow.set_current_details("\n".join(lines))


def _code(text: str) -> str:
    """Return text as Markdown code; a line break or backtick in it, which would end the code, is shown as a space."""
    return "`" + "".join(" " if c == "`" or not c.isprintable() else c for c in text) + "`"


def _plain(text: str) -> str:
    """Return text that stays text in Markdown: documents and people are hostile until proved otherwise."""
    line = "".join(" " if c in "\r\n" else c for c in text)
    return clipped(line, 300).translate({ord(c): f"\\{c}" for c in "`*_[]<>|#!"})
