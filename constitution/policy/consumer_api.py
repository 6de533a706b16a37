"""The JSON of the consumers' HTTP: policy engine and orchestrator, and those who ask them (sync, gate, client).

``policy_hash`` is the checksum of the document that decided; it is null when there was none. No placeholder exists.
``generation`` is 0 before the first release of the environment.
"""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, StringConstraints

from constitution.checksum import Checksum
from constitution.environment import Identifier
from constitution.model import Model
from constitution.policy.evaluation import Decision, PolicyDecision, Text

PROBE_TENANT = "runbook-probe"
"""The tenant of the runbook's own questions: needs scope ``probe``; every watch query leaves it out."""

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


class EvaluationAnswer(PolicyDecision):
    """Answer of ``POST /v1/evaluate``: the decision, and by which document it was made."""

    policy_hash: Checksum | None
    constitution_version: str | None
    generation: Annotated[int, Field(ge=0)]


class SessionRequest(Model):
    """Body of ``POST /v1/sessions/start``.

    The clock is the orchestrator's. ``time`` may be given only with a token of scope ``probe``, so that golden vectors
    can be asked end to end and nobody else can choose the hour that a rule looks at.
    """

    tenant: Text
    user: Text = ""
    agent: Text = ""
    action: Text = ""
    tool: Text = ""
    amount: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    currency: Annotated[str, StringConstraints(max_length=3)] = ""
    data_class: Text = ""
    prompt: Annotated[str, StringConstraints(max_length=16384)] = ""
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
