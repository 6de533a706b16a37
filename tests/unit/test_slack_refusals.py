"""What Slack's refusals mean: which heal by themselves, which need a person, and how long Slack asks to wait."""

from collections.abc import Mapping

import pytest
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from slack_sdk.web import SlackResponse

from adapters.slack import LONGEST_WAIT, translated
from constitution.errors import ForbiddenError, InvalidRequestError, NotFoundError, UnavailableError


def refusal(status: int, data: Mapping[str, object], headers: dict[str, str] | None = None) -> SlackApiError:
    """The SDK's own error for an answer."""
    response = SlackResponse(
        client=WebClient(),
        http_verb="POST",
        api_url="https://slack.com/api/chat.postMessage",
        req_args={},
        data=dict(data),
        headers=headers or {},
        status_code=status,
    )
    with pytest.raises(SlackApiError) as caught:
        response.validate()  # type: ignore[no-untyped-call]
    return caught.value


@pytest.mark.parametrize(
    ("status", "data", "kind"),
    [
        (429, {"ok": False, "error": "ratelimited"}, UnavailableError),
        (200, {"ok": False, "error": "internal_error"}, UnavailableError),
        (503, {}, UnavailableError),
        (200, {"ok": False, "error": "missing_scope"}, ForbiddenError),
        (403, {}, ForbiddenError),
        (200, {"ok": False, "error": "not_in_channel"}, NotFoundError),
        (200, {"ok": False, "error": "invalid_blocks"}, InvalidRequestError),
    ],
)
def test_a_refusal_is_what_heals_it(status: int, data: dict[str, object], kind: type[Exception]) -> None:
    assert type(translated(refusal(status, data))) is kind


@pytest.mark.parametrize(
    ("asked", "kept"), [("30", 30.0), ("86400", LONGEST_WAIT.total_seconds()), ("soon", None), ("", None)]
)
def test_a_limit_says_how_long_to_wait(asked: str, kept: float | None) -> None:
    error = translated(refusal(429, {"ok": False, "error": "ratelimited"}, {"Retry-After": asked}))
    assert isinstance(error, UnavailableError)
    assert error.after_s == kept


def test_the_emulators_403_is_a_limit_only_when_its_calls_are_spent() -> None:
    answer = {"message": "API rate limit exceeded"}
    assert isinstance(translated(refusal(403, answer, {"X-RateLimit-Remaining": "0"})), UnavailableError)
    assert isinstance(translated(refusal(403, answer, {"X-RateLimit-Remaining": "7"})), ForbiddenError)
