"""The draft goes live in the scratch environment, from its first validation to the engines' first decisions."""

from functools import partial

import httpx
from chaos.decisions import Expected
from chaos.stack import ENGINES, Stack, wait_until
from policy.drafts import Draft

from constitution.api import ValidateResult
from constitution.checksum import checksum_of
from constitution.evaluation import Decision


def _in_state(stack: Stack, name: str, state: str) -> bool:
    return stack.status(name).state == state


def test_before_the_draft_the_engines_obey_what_it_replaces(stack: Stack, draft: Draft, expected: Expected) -> None:
    before = "no_constitution" if draft.previous is None else "live"
    for name in ENGINES:
        wait_until(partial(_in_state, stack, name, before), f"engine {name} is {before}")
        answer = expected.ask_one(stack.engine(name)).json()
        if draft.previous is None:
            assert (answer["decision"], answer["reason"]) == (Decision.DENY, "no_constitution")
        else:
            assert answer["policy_hash"] == checksum_of(draft.previous)


def test_the_service_finds_the_draft_valid(stack: Stack, draft: Draft) -> None:
    files = [
        ("document", ("document.json", draft.data, "application/json")),
        ("signature", ("document.sig", stack.signing.signature(draft.data), "application/octet-stream")),
    ]
    response = httpx.post(f"{stack.service.url}/v1/constitution/validate", files=files, timeout=10)
    assert response.status_code == httpx.codes.OK, response.text
    result = ValidateResult.model_validate_json(response.content)
    assert result.valid, f"constitution-service refuses the draft: {[issue.message for issue in result.issues]}"
    assert result.checksum == draft.checksum


def test_the_draft_goes_live_without_kafka(live: Stack, draft: Draft, expected: Expected) -> None:
    """No broker answers here, ever: news of a release then comes by the poll."""
    assert live.served() == draft.data
    for name in ENGINES:
        expected.hold(live.engine(name), "after the release")
