"""Asks an engine everything that the policy suite asks, and compares each answer with the domain's own."""

import asyncio
from dataclasses import dataclass

import httpx
from policy.cases import load_cases, load_invariants
from policy.drafts import Draft

from constitution.consumer_api import EvaluationAnswer
from constitution.evaluation import EvaluationRequest, PolicyDecision

CONCURRENCY = 8
TIMEOUT = httpx.Timeout(10.0)
JSON = {"Content-Type": "application/json"}


def questions(draft: Draft) -> tuple[EvaluationRequest, ...]:
    """Return every case of the draft's rules, and the first and last request of each invariant."""
    return (
        *(case.request for case in load_cases() if case.applies_to(draft.rules)),
        *(invariant.requests[end] for invariant in load_invariants() for end in (0, -1)),
    )


@dataclass(frozen=True)
class Expected:
    """The domain's decisions about the draft's questions, made once."""

    draft: Draft
    answers: tuple[tuple[EvaluationRequest, PolicyDecision], ...]

    @classmethod
    def of(cls, draft: Draft) -> "Expected":
        """Decide every question in this process."""
        return cls(draft, tuple((request, draft.policy.evaluate(request)) for request in questions(draft)))

    def hold(self, engine: str, when: str, *, times: int = 1, concurrency: int = CONCURRENCY) -> None:
        """Ask the engine at the address ``engine`` every question ``times`` times.

        Raises:
            AssertionError: an answer differs from the domain's, was refused, or did not come.
        """
        found = asyncio.run(self._differences(engine, times, concurrency))
        asked = len(self.answers) * times
        assert not found, f"{when}: {len(found)} of {asked} answers are not the domain's, e.g. {found[0]}"

    def ask_one(self, engine: str) -> httpx.Response:
        """Ask the engine the first question."""
        request, _ = self.answers[0]
        return httpx.post(f"{engine}/v1/evaluate", content=request.model_dump_json(), headers=JSON, timeout=TIMEOUT)

    async def _differences(self, url: str, times: int, concurrency: int) -> list[str]:
        free = asyncio.Semaphore(concurrency)
        limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
        async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT, limits=limits) as client:

            async def ask(request: EvaluationRequest, expected: PolicyDecision) -> str | None:
                async with free:
                    try:
                        response = await client.post("/v1/evaluate", content=request.model_dump_json(), headers=JSON)
                    except httpx.TransportError as error:
                        return f"no answer: {error!r}"
                if response.status_code != httpx.codes.OK:
                    return f"HTTP {response.status_code}: {response.text[:200]}"
                answer = EvaluationAnswer.model_validate_json(response.content)
                decision = PolicyDecision(**answer.model_dump(include=set(PolicyDecision.model_fields)))
                if decision != expected or answer.policy_hash != self.draft.checksum:
                    return f"the domain says {expected.model_dump_json()}, the engine {answer.model_dump_json()}"
                return None

            found = await asyncio.gather(*(ask(*pair) for pair in self.answers * times))
        return [difference for difference in found if difference]
