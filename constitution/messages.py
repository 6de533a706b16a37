"""What people type and read: requests, messages and status of the workflows. All JSON; unknown fields refused."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, StringConstraints, model_validator

from constitution.checksum import Checksum
from constitution.environment import Identifier
from constitution.model import Model
from constitution.release import Envelope, UpdateId, Verdict
from constitution.trust.plan import Plan

ChangeRequestId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$")]
"""A name inside the inbox: no path, no URL."""
Reason = Annotated[str, StringConstraints(min_length=1, max_length=1000)]


class UpdateRequest(Model):
    """Input of ``ConstitutionUpdate``: one JSON object that a person can type in the Temporal UI.

    Either ``checksum`` (the artifact was pushed) or ``document`` and ``signatures`` (names inside the inbox).
    """

    checksum: Checksum | None = None
    document: FileName | None = None
    signatures: tuple[FileName, ...] | None = None
    change_request: ChangeRequestId
    strategy: Identifier = "default"
    not_before: AwareDatetime | None = None
    dry_run: bool = False

    @model_validator(mode="after")
    def _one_source(self) -> "UpdateRequest":
        if (self.checksum is None) == (self.document is None):
            raise ValueError("give either checksum, or document and signatures")
        if self.document is not None and not self.signatures:
            raise ValueError("document needs at least one name in signatures")
        if self.document is None and self.signatures:
            raise ValueError("signatures go with document; an artifact named by checksum has its own")
        return self


class RollbackRequest(Model):
    """Input of ``ConstitutionRollback``. By hand ``reason`` is enough; the rest is filled by a parent.

    ``to`` is the generation whose artifact is restored; default: the newest confirmed artifact that is not current.
    ``withdraw``: none is restored, whatever was confirmed before; from then on everything is denied.
    ``bad_generation`` is the release to undo; default: the current one.
    """

    reason: Reason
    to: Annotated[int, Field(ge=1)] | None = None
    bad_generation: Annotated[int, Field(ge=1)] | None = None
    update_id: UpdateId | None = None  # of the update that is undone; a rollback by hand makes its own
    watch_evidence: Checksum | None = None  # of an anomaly of the bad release: it is poisoned, not only withdrawn
    order: Envelope | None = None  # an operator's, to this run by its update id; without it, the run waits for one
    withdraw: bool = False

    @model_validator(mode="after")
    def _restores_one_or_none(self) -> "RollbackRequest":
        if self.withdraw and self.to is not None:
            raise ValueError("to names what is restored, and withdraw that nothing is: give one of them")
        return self


def undo_command(generation: int) -> str:
    """Return the command that undoes one release, named by its generation; it leaves a later one live."""
    return f"constitution rollback --bad-generation {generation} --reason 'undo generation {generation}'"


class DecideMessage(Model):
    """A signed approval or denial (constitution.trust.approval.ApprovalPredicate in a DSSE envelope)."""

    approval: Envelope


class OrderMessage(Model):
    """A signed order (constitution.trust.approval.OrderPredicate in a DSSE envelope): promote, skip, rollback."""

    order: Envelope


class SteerMessage(Model):
    """Retry or resume: an operator's signed order; a reason alone is an unsigned one."""

    order: Envelope | None = None
    reason: Reason | None = None


class ReasonedMessage(SteerMessage):
    """Abort or hold: what is told to everyone has a reason."""

    @model_validator(mode="after")
    def _says_why(self) -> "ReasonedMessage":
        if self.order is None and self.reason is None:
            raise ValueError("give a signed order, or a reason")
        return self


class Outcome(StrEnum):
    """How a run ended; exactly one (invariant 4)."""

    COMPLETED = "completed"
    REJECTED = "rejected"
    ROLLED_BACK = "rolled_back"


class Phase(StrEnum):
    """Where a run is."""

    RUNNING = "running"
    WAITING = "waiting"
    NEEDS_A_PERSON = "needs a person"
    ROLLING_BACK = "rolling back"
    RECORDS_PENDING = "live, records pending"
    CLOSED = "closed"


class StepStatus(Model):
    """One step of the runbook: ``pending | running | waiting | done | failed | skipped | undone``."""

    name: str
    state: Literal["pending", "running", "waiting", "done", "failed", "skipped", "undone"] = "pending"
    detail: str = ""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    first_error: str | None = None
    last_error: str | None = None


class Held(Model):
    """Why a release must not be confirmed yet; an order to resume gives ``name`` as its step."""

    name: str
    why: str


class Status(Model):
    """Answer of the query ``status``."""

    workflow: str
    environment: str | None = None
    update_id: str | None = None
    phase: Phase
    step: str | None = None
    waiting_for: str = ""  # on whom or what, in words
    next_command: str = ""
    checksum: Checksum | None = None
    version: str | None = None
    previous: Checksum | None = None
    change_request: str | None = None
    evidence: Checksum | None = None
    strategy: str = ""  # its name, and what it does, in words
    plan: Plan | None = None  # of an update: what the board signs beside the document
    predicted: tuple[str, ...] = ()  # the expected change, in words
    generation: int | None = None
    approvers: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()  # messages that were refused, and why
    steps: tuple[StepStatus, ...] = ()
    verdict: Verdict | None = None
    held: tuple[Held, ...] = ()  # the first is what the next order to resume answers
    undoes: int | None = None  # of a rollback: the generation that it takes out of force
    rollback_workflow: str | None = None
    outcome: Outcome | None = None
    outcome_detail: str = ""


class UpdateResult(Model):
    """Result of a completed ``ConstitutionUpdate`` (a dry run has no generation)."""

    outcome: Outcome
    environment: str
    update_id: str
    version: str
    checksum: Checksum
    generation: int | None
    effective_at: datetime | None
    verdict: Verdict | None
    approvers: tuple[str, ...] = ()
    slack_permalink: str = ""
    archive_commit: str = ""
    unreachable: tuple[str, ...] = ()  # the first of them
    more_unreachable: int = 0  # how many others


class RollbackResult(Model):
    """Result of a completed ``ConstitutionRollback``.

    ``generation`` is null when the lease showed that nothing had been published: then nothing was changed.
    """

    outcome: Outcome
    environment: str
    update_id: str
    bad_generation: int | None
    generation: int | None
    version: str | None
    checksum: Checksum | None
    effective_at: datetime | None
    reason: str
    unreachable: tuple[str, ...] = ()  # the first of them
    more_unreachable: int = 0  # how many others
    slack_permalink: str = ""
    archive_commit: str = ""
