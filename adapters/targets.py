"""Asks consumers over HTTP what they obey, and has them refresh first.

A target that does not answer is ``UnavailableError``; an answer is returned unchanged, for the caller to compare.
A token holds for the one scope that the call needs, and is used for every target until it is half as old as it may
get: it names no target, so a token for each call protected nobody more, and cost as much as the question.
Each target is an address of its own, and most are asked one question: connections are many, and few are kept.
"""

from datetime import UTC, datetime
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from constitution.addresses import host_of
from constitution.api import Problem
from constitution.environment import Target
from constitution.errors import ForbiddenError, UnavailableError
from constitution.policy.consumer_api import PROBE_TENANT, EvaluationAnswer, PolicyStatus, SessionAnswer, SessionRequest
from constitution.watch.prediction import PredictAnswer, PredictRequest
from signatures.authorities import authorities
from signatures.tokens import MAX_TTL, ClientKey, mint

TIMEOUT = httpx.Timeout(5.0, connect=2.0)  # seconds; a refresh fetches one document of at most 1 MiB on the way
PREDICT_TIMEOUT = httpx.Timeout(10.0, connect=2.0)  # a replay of some thousand requests takes about a second
LIMITS = httpx.Limits(max_connections=256, max_keepalive_connections=16, keepalive_expiry=5.0)
"""More connections than any fan-out has questions under way (``activities.fan_out.AT_ONCE``), so that none waits. For
each question the pool looks at every connection it keeps; 16 serve who is asked many requests in a row."""

MAX_ANSWER = 1024 * 1024  # bytes; a target's answers are some hundred

_M = TypeVar("_M", bound=BaseModel)


class HttpTargets:
    """Implements ``activities.ports.TargetClient``; close it.

    Args:
        client_key: the worker's; needs the scopes ``probe`` and ``policy:refresh``.
        environment: bound into every token.
    """

    def __init__(self, client_key: ClientKey, environment: str) -> None:
        self._key = client_key
        self._environment = environment
        self._tokens: dict[str, tuple[str, datetime]] = {}
        self._http = httpx.AsyncClient(
            timeout=TIMEOUT, limits=LIMITS, trust_env=False, follow_redirects=False, verify=authorities()
        )

    async def aclose(self) -> None:
        """Close every connection."""
        await self._http.aclose()

    async def policy(self, target: Target, *, force: bool) -> dict[str, Any]:
        """Return ``{version, checksum, generation}`` as the target says it; with ``force`` it refreshes first.

        An orchestrator is forced by the runbook's own means: a session of the probe tenant with ``deployment_mode``
        ``production-debug``; whether that session may start does not matter.

        Raises:
            UnavailableError: no answer in time, HTTP 5xx, or something that is no answer of this target: an ingress's
                refusal, too.
            ForbiddenError: the target does not accept our token: its trust policy is another one.
        """
        if force and target.kind == "orchestrator":
            question = SessionRequest(
                tenant=PROBE_TENANT,
                user="constitution-runbook",
                agent="constitution-runbook",
                action="policy.probe",
                deployment_mode="production-debug",
            )
            session = await self._ask(
                target, "/v1/sessions/start", SessionAnswer, scope="probe", body=question.model_dump(mode="json")
            )
            return {
                "version": session.constitution_version,
                "checksum": session.policy_hash,
                "generation": session.generation,
            }
        scope = "policy:refresh" if force else None
        status = await self._ask(target, "/v1/policy/refresh" if force else "/v1/policy", PolicyStatus, scope=scope)
        if status.target != target.id:
            raise UnavailableError(
                f"{host_of(target.url)} answers as {status.target!r}, not as {target.id!r}",
                hint="environment.toml gives this target another one's address",
            )
        return {"version": status.version, "checksum": status.checksum, "generation": status.generation}

    async def evaluate(self, target: Target, request: dict[str, Any]) -> dict[str, Any]:
        """Return a policy engine's decision about ``request`` (schema v1 in JSON values; tenant: the probe's).

        Raises:
            UnavailableError, ForbiddenError: as for ``policy``.
        """
        answer = await self._ask(target, "/v1/evaluate", EvaluationAnswer, scope="probe", body=request)
        return answer.model_dump(mode="json")

    async def predict(self, target: Target, checksum: str) -> PredictAnswer:
        """Return what a candidate would decide otherwise about a policy engine's recorded requests, in counts.

        Raises:
            UnavailableError, ForbiddenError: as for ``policy``; an engine's refusal (no such candidate, one that does
                not verify) is ``UnavailableError`` with what it said.
        """
        answer = await self._ask(
            target,
            "/v1/policy/predict",
            PredictAnswer,
            scope="probe",
            body=PredictRequest(checksum=checksum).model_dump(mode="json"),
            timeout=PREDICT_TIMEOUT,
        )
        if (answer.target, answer.candidate) != (target.id, checksum):
            raise UnavailableError(f"{target.id} answered as {answer.target!r} about {answer.candidate}")
        return answer

    def _token(self, scope: str) -> str:
        token, made = self._tokens.get(scope, ("", datetime.min.replace(tzinfo=UTC)))
        now = datetime.now(UTC)
        if not made <= now < made + MAX_TTL / 2:  # also when the clock was set back
            token = mint(self._key, environment=self._environment, scopes=[scope], now=now)
            self._tokens[scope] = (token, now)
        return token

    async def _ask(
        self,
        target: Target,
        path: str,
        model: type[_M],
        *,
        scope: str | None,
        body: dict[str, Any] | None = None,
        timeout: httpx.Timeout = TIMEOUT,  # noqa: ASYNC109 - httpx's own, by phase
    ) -> _M:
        headers = {"Accept-Encoding": "identity"}  # a compressed answer grows beyond any bound while it is unpacked
        if scope is not None:
            headers["Authorization"] = f"Bearer {self._token(scope)}"
        method = "GET" if scope is None else "POST"
        url = target.url.rstrip("/") + path
        answer = bytearray()
        try:
            async with self._http.stream(method, url, json=body, headers=headers, timeout=timeout) as response:
                encoding = response.headers.get("content-encoding", "identity")
                if encoding != "identity":
                    raise UnavailableError(f"{target.id} answered {path} compressed ({encoding[:40]}), unasked")
                async for part in response.aiter_raw():
                    answer += part
                    if len(answer) > MAX_ANSWER:
                        raise UnavailableError(f"{target.id} answered {path} with more than {MAX_ANSWER} bytes")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            where = f"{target.id} at {host_of(target.url)}"
            raise UnavailableError(f"{where} did not answer: {type(error).__name__}") from error
        if response.status_code != httpx.codes.OK:
            problem = _problem(bytes(answer))
            # A 403 without a problem document is the word of something in between, which may pass.
            if problem is not None and response.status_code in {401, 403}:
                raise ForbiddenError(
                    f"{target.id} refuses the worker's token for {scope}",
                    hint="its trust policy must list the worker's client key with the scopes probe and policy:refresh",
                )
            detail = problem.detail[:300] if problem is not None else repr(bytes(answer[:200]))
            raise UnavailableError(f"{target.id} answered {path} with HTTP {response.status_code}: {detail}")
        try:
            return model.model_validate_json(bytes(answer))
        except ValidationError as error:
            raise UnavailableError(f"{target.id} answered {path} with something that is no {model.__name__}") from error


def _problem(answer: bytes) -> Problem | None:
    """The target's own problem document (RFC 9457); None where something else answered."""
    try:
        return Problem.model_validate_json(answer)
    except ValidationError:
        return None
