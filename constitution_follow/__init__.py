"""Obey the constitution inside your own program: follow, verify, decide. Installed with the extra ``follow``.

    async with Follower(service="http://…", trust="trust.toml", target="billing-1") as policy:
        answer = policy.evaluate(EvaluationRequest(tenant="global", action="refund", amount=50.0, time=now))

The policy engine service is built on this package. docs/follow.md tells more.
"""

try:
    from constitution.policy.consumer_api import EvaluationAnswer, PolicyStatus
    from constitution.policy.evaluation import Decision, EvaluationRequest
    from constitution.policy.lapse import Caution, OnLapse
    from constitution_follow.follower import Follower
    from constitution_follow.middleware import ConstitutionMiddleware
except ModuleNotFoundError as error:
    message = f"constitution_follow needs {error.name}: pip install 'constitution-runbook[follow]'"
    raise ModuleNotFoundError(message, name=error.name) from error

__all__ = [
    "Caution",
    "ConstitutionMiddleware",
    "Decision",
    "EvaluationAnswer",
    "EvaluationRequest",
    "Follower",
    "OnLapse",
    "PolicyStatus",
]
