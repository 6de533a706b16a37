"""What each rule costs on the worst prompts. Runs first: a draft that answers too slowly is asked nothing else."""

import time
from collections.abc import Iterator

import pytest
from policy.cases import load_cases
from policy.drafts import Draft
from policy.hostile import PROMPTS, REQUESTS

from constitution.policy.document import Rule
from constitution.policy.evaluation import EvaluationRequest
from constitution.policy.rules import Policy

# Time of one rule on one request, in evaluations of a rule that asks nothing, measured beside it: a slower machine
# slows both. That one takes about 6 microseconds; the dearest rule of the shipped templates 40 times as much; \\pL in a
# pattern 800 times, because the engine compiles a pattern at each evaluation. An engine that gives a single rule 200
# times serves 800 requests per second and core.
#
# The monotonic clock is read, and the least of some looks counts: other programs make a look longer, never shorter.
# A thread's CPU clock may stand still for longer than an evaluation takes, on a virtual machine whose clock was set.
MAX_RATIO = 200
HOPELESS_RATIO = 20 * MAX_RATIO  # few looks only: an evaluation may take many seconds
LOOKS, HOPELESS_LOOKS = 20, 3


@pytest.fixture(scope="module", autouse=True)
def _stop_here_if_too_slow(request: pytest.FixtureRequest) -> Iterator[None]:
    failed_before = request.session.testsfailed
    yield
    if request.session.testsfailed > failed_before:
        request.session.shouldfail = "a rule is over its budget: the other questions would take too long"


def _least_seconds(policy: Policy, request: EvaluationRequest, *, enough: float, hopeless: float) -> float:
    """Return seconds of one evaluation: the least of some, when the first takes more than is enough."""
    best = float("inf")
    for look in range(1, LOOKS + 1):
        started = time.perf_counter()
        policy.evaluate(request)
        best = min(best, time.perf_counter() - started)
        if best <= enough or (best > hopeless and look >= HOPELESS_LOOKS):
            break
    return best


def _unit_seconds(draft: Draft) -> float:
    """Return seconds of a rule that asks nothing: what every evaluation costs, on this machine, now."""
    rule = draft.document.rules[0].model_copy(update={"when": "false"})
    return _least_seconds(draft.alone(rule), REQUESTS[0], enough=0.0, hopeless=float("inf"))


def _requests(rule: Rule) -> Iterator[EvaluationRequest]:
    """Yield the longest prompts in all that the rule's cases ask: behind ``tool == "x" &&`` no pattern runs else."""
    asked = [REQUESTS[0], *(case.request for case in load_cases() if case.rule == rule.id)]
    for request in {request.model_copy(update={"prompt": ""}): None for request in asked}:
        for prompt in PROMPTS:
            yield request.model_copy(update={"prompt": prompt})


def test_rule_stays_within_budget(draft: Draft, rule: Rule) -> None:
    policy = draft.alone(rule)
    for request in _requests(rule):
        prompt = request.prompt
        what = f"rule {rule.id!r}, on a prompt of {prompt[:12]!r} repeated to {len(prompt)} characters"
        unit = _unit_seconds(draft)
        seconds = _least_seconds(policy, request, enough=MAX_RATIO * unit, hopeless=HOPELESS_RATIO * unit)
        assert seconds <= MAX_RATIO * unit, (
            f"{what}, takes {seconds / unit:.0f} times as long as a rule that asks nothing ({seconds * 1000:.1f} ms);"
            f" at most {MAX_RATIO} times are allowed: use narrower patterns, without \\p classes"
        )
        answer = policy.evaluate(request)
        assert answer.reason != "budget", f"{what}, uses up the engine's budget"
        assert answer.errors == 0, f"{what}, ends in a CEL error"
