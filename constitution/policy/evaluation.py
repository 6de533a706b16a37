"""The request that a rule may read (request schema v1), and the decision."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, StringConstraints

from constitution.model import Model

Text = Annotated[str, StringConstraints(max_length=256)]


class Decision(StrEnum):
    """Order of precedence: deny, require_approval, allow, then the document's default effect."""

    ALLOW = "allow"
    DENY = "deny"
    REQUIRE_APPROVAL = "require_approval"


class AgentRequest(Model):
    """What an agent wants to do, as its caller says."""

    tenant: Text
    user: Text = ""
    agent: Text = ""
    action: Text = ""
    tool: Text = ""
    amount: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    currency: Annotated[str, StringConstraints(max_length=3)] = ""
    data_class: Text = ""
    prompt: Annotated[str, StringConstraints(max_length=16384)] = ""


class EvaluationRequest(AgentRequest):
    """Request schema v1: everything a rule's ``when`` may read, all of it always present."""

    time: AwareDatetime


class PolicyDecision(Model):
    """A decision and its reason. ``rule`` is null when the default effect or a reserved reason decided."""

    decision: Decision
    rule: str | None = None
    severity: str = "none"
    message: str = ""
    reason: Literal["rule", "default", "no_constitution", "expired", "stale", "budget"] = "rule"
    errors: int = 0  # CEL errors met while deciding
