"""The draft goes live in the scratch environment, from its first validation to the engines' first decisions."""

import json
from functools import partial
from http import HTTPStatus

from chaos.connection import call
from chaos.decisions import Expected
from chaos.stack import ENGINES, Stack, wait_until
from policy.drafts import Draft

from constitution.api import ValidateRequest, ValidateResult
from constitution.checksum import checksum_of
from constitution.policy.evaluation import Decision


def _in_state(stack: Stack, name: str, state: str) -> bool:
    return stack.status(name).state == state


def test_before_the_draft_the_engines_obey_what_it_replaces(stack: Stack, draft: Draft, expected: Expected) -> None:
    before = "no_constitution" if draft.previous is None else "live"
    for name in ENGINES:
        wait_until(partial(_in_state, stack, name, before), f"engine {name} is {before}")
        answer = json.loads(expected.ask_one(stack.engine(name)).body)
        if draft.previous is None:
            assert (answer["decision"], answer["reason"]) == (Decision.DENY, "no_constitution")
        else:
            assert answer["policy_hash"] == checksum_of(draft.previous)


def test_the_service_finds_the_draft_valid(stack: Stack, draft: Draft) -> None:
    question = ValidateRequest(checksum=draft.checksum).model_dump_json().encode()
    answer = call(stack.service.url, "/v1/constitution/validate", question)
    assert answer.status == HTTPStatus.OK, answer.body
    result = ValidateResult.model_validate_json(answer.body)
    assert result.valid, f"constitution-service refuses the draft: {[issue.message for issue in result.issues]}"
    assert result.checksum == draft.checksum


def test_the_draft_goes_live_without_kafka(live: Stack, draft: Draft, expected: Expected) -> None:
    """No broker answers here, ever: news of a release then comes by the poll."""
    assert live.served() == draft.data
    expected.hold(live.engine("a"), "after the release")
    # Engine ``b`` may deny as stale for a moment when the machine stops it for longer than that.
    wait_until(partial(expected.holds_for_one, live.engine("b")), "engine b decides by the draft")
