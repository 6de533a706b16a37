"""Asks an engine everything that the policy suite asks, and compares each answer with the domain's own."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from chaos.connection import FAILURES, Answer, Connection, call
from policy.cases import load_cases, load_invariants
from policy.drafts import Draft

from constitution.policy.evaluation import EvaluationRequest

CONCURRENCY = 4
_PATH = "/v1/evaluate"
_OK = 200


def questions(draft: Draft) -> tuple[EvaluationRequest, ...]:
    """Return every case of the draft's rules, and the first and last request of each invariant."""
    return (
        *(case.request for case in load_cases() if case.applies_to(draft.rules)),
        *(invariant.requests[end] for invariant in load_invariants() for end in (0, -1)),
    )


@dataclass(frozen=True)
class Question:
    """A request as it goes over the wire, and the domain's decision as it must come back."""

    body: bytes
    decision: dict[str, Any]


@dataclass(frozen=True)
class Expected:
    """The domain's decisions about the draft's questions, made once."""

    questions: tuple[Question, ...]

    @classmethod
    def of(cls, draft: Draft) -> "Expected":
        """Decide every question in this process."""
        return cls(
            tuple(
                Question(
                    request.model_dump_json().encode(),
                    draft.policy.evaluate(request).model_dump(mode="json") | {"policy_hash": draft.checksum},
                )
                for request in questions(draft)
            )
        )

    def hold(self, engine: str, when: str, *, times: int = 1, concurrency: int = CONCURRENCY) -> None:
        """Ask the engine at the address ``engine`` every question ``times`` times, ``concurrency`` at a time.

        Raises:
            AssertionError: an answer differs from the domain's, was refused, or did not come.
        """
        asked = self.questions * times
        with ThreadPoolExecutor(concurrency) as pool:
            parts = pool.map(_differences, [engine] * concurrency, [asked[i::concurrency] for i in range(concurrency)])
            found = [difference for part in parts for difference in part]
        assert not found, f"{when}: {len(found)} of {len(asked)} answers are not the domain's, e.g. {found[0]}"

    def holds_for_one(self, engine: str) -> bool:
        """Tell whether the engine's answer to the first question is the domain's, just now."""
        return not _differences(engine, self.questions[:1])

    def ask_one(self, engine: str) -> Answer:
        """Ask the engine the first question."""
        return call(engine, _PATH, self.questions[0].body)


def _differences(engine: str, asked: Sequence[Question]) -> list[str]:
    connection = Connection(engine)
    try:
        return [text for question in asked if (text := _difference(connection, question))]
    finally:
        connection.close()


def _difference(connection: Connection, question: Question) -> str | None:
    try:
        status, body = connection.call(_PATH, question.body)
    except FAILURES as error:
        return f"no answer: {error!r}"
    if status != _OK:
        return f"HTTP {status}: {body[:200]!r}"
    answer = json.loads(body)
    if any(answer[name] != value for name, value in question.decision.items()):
        return f"the domain says {question.decision}, the engine {answer}"
    return None
