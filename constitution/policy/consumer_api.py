"""The JSON of the consumers' HTTP: policy engine and orchestrator, and those who ask them (sync, gate, client).

``policy_hash`` is the checksum of the document that decided; it is null when there was none. No placeholder exists.
``generation`` is 0 before the first release of the environment.
"""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from constitution.checksum import Checksum
from constitution.environment import Identifier
from constitution.model import Model
from constitution.policy.evaluation import AgentRequest, Decision, EvaluationRequest, PolicyDecision

PROBE_TENANT = "runbook-probe"
"""The tenant of the runbook's own questions: needs scope ``probe``; every watch query leaves it out."""

MAX_BATCH = 256  # requests of one call

FollowerState = Literal["starting", "no_constitution", "live", "stale", "expired"]
"""``starting``: current was never read. ``stale``: no contact for MAX_STALENESS_SECONDS. ``expired``: by its date."""

SessionReason = Literal[
    "rule",
    "default",
    "no_constitution",
    "expired",
    "stale",
    "budget",
    "engine_unreachable",
    "engine_disagrees",
]
"""Why the orchestrator decided: the engine's reason, or one of its own about the engine."""


class PolicyStatus(Model):
    """Answer of ``GET /v1/policy`` and ``POST /v1/policy/refresh``: what this replica obeys, and since when."""

    target: Identifier
    ring: Identifier
    version: str | None
    checksum: Checksum | None
    generation: Annotated[int, Field(ge=0)]
    loaded_at: datetime | None
    last_contact_at: datetime | None
    state: FollowerState
    last_error: str | None
    expires_at: datetime | None = None


class EvaluationAnswer(PolicyDecision):
    """Answer of ``POST /v1/evaluate``: the decision, and by which document it was made."""

    policy_hash: Checksum | None
    constitution_version: str | None
    generation: Annotated[int, Field(ge=0)]


class BatchRequest(Model):
    """Body of ``POST /v1/evaluate/batch``."""

    requests: Annotated[tuple[EvaluationRequest, ...], Field(min_length=1, max_length=MAX_BATCH)]


class BatchAnswer(Model):
    """Answer of ``POST /v1/evaluate/batch``: in the order of the requests, all of them by one and the same release."""

    answers: tuple[EvaluationAnswer, ...]


class SessionRequest(AgentRequest):
    """Body of ``POST /v1/sessions/start``.

    The clock is the orchestrator's. ``time`` may be given only with a token of scope ``probe``, so that golden vectors
    can be asked end to end and nobody else can choose the hour that a rule looks at.
    """

    time: AwareDatetime | None = None
    deployment_mode: Literal["production", "production-debug"] = "production"


class SessionAnswer(Model):
    """Answer of ``POST /v1/sessions/start``; HTTP 200 for refusals too.

    ``session_id`` is given only when the session may start; ``ticket`` only when a person must approve it first.
    """

    session_id: str | None
    decision: Decision
    rule: str | None
    severity: str
    message: str
    reason: SessionReason
    ticket: str | None
    policy_hash: Checksum | None
    constitution_version: str | None
    generation: Annotated[int, Field(ge=0)]
