"""Requests that are within schema v1 and at its edges: what an attacker, or a broken agent, may really send."""

from datetime import UTC, datetime

from policy.cases import DEFAULTS

from constitution.policy.evaluation import EvaluationRequest

LONGEST_TEXT, LONGEST_PROMPT = 256, 16384

_FIELDS = ("tenant", "user", "agent", "action", "tool", "data_class")
_TEXTS = (
    "",
    " ",
    "\x00",
    "\u202e",
    "a" * LONGEST_TEXT,
    "1" * LONGEST_TEXT,
    "../" * 85,
    "'\"\\)||true",
    "\u0130\u0131",
    "💥" * 64,
)
_AMOUNTS = (0.0, -0.0, -1.0, 1e-320, 9007199254740993.0, 1.7976931348623157e308, -1.7976931348623157e308)
_TIMES = (
    datetime(1, 1, 2, tzinfo=UTC),
    datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC),
    datetime(2024, 2, 29, 12, tzinfo=UTC),
    datetime(2026, 3, 7, 3, 30, tzinfo=UTC),  # a Saturday night
    datetime(9999, 12, 30, tzinfo=UTC),
)
_PATTERNS = ("", "a", "0123456789", "-----BEGIN ", "a@b.c ", "\n", "sk_live_", "x=y&", "ä", "💥", "(((((", "aaaaaaaaab")

PROMPTS = tuple((pattern * LONGEST_PROMPT)[:LONGEST_PROMPT] for pattern in _PATTERNS)
"""As long as a prompt may be, each made of one piece repeated: where a search finds no end."""


def _asked(**values: object) -> EvaluationRequest:
    return EvaluationRequest.model_validate(DEFAULTS | values)


REQUESTS: tuple[EvaluationRequest, ...] = (
    *(_asked(**{field: text}) for field in _FIELDS for text in _TEXTS),
    *(_asked(currency=text[:3]) for text in _TEXTS),
    *(_asked(prompt=text) for text in _TEXTS),
    *(_asked(amount=amount, currency="EUR") for amount in _AMOUNTS),
    *(_asked(time=time) for time in _TIMES),
)
