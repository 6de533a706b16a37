"""Asks a policy engine: each of a list in turn, bounded in time. An unreadable answer counts as none."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from constitution.addresses import host_of
from constitution.errors import UnavailableError
from constitution.policy.consumer_api import EvaluationAnswer, PolicyStatus
from constitution.policy.evaluation import EvaluationRequest
from signatures.tokens import ClientKey, mint

TIMEOUT = httpx.Timeout(1.5, connect=0.5)  # seconds an engine has; a decision takes milliseconds
REFRESH_TIMEOUT = httpx.Timeout(3.0, connect=0.5)  # seconds; reading and verifying takes tens of milliseconds
BUDGET_SECONDS = 4.0  # for all engines together: the callers (sessions, sync of targets) give up after five
MAX_ANSWER = 1024 * 1024  # bytes; an engine's answers are some hundred
TOKEN_LIFETIME = timedelta(minutes=5)
TOKEN_RENEWAL = timedelta(minutes=4)  # a minute before its end: clocks differ

_Answer = TypeVar("_Answer", bound=BaseModel)


class EngineUnreachableError(UnavailableError):
    """No policy engine of the list gave a decision."""

    code = "engine-unreachable"


@dataclass(frozen=True, slots=True)
class Asked:
    """Which engine decided, and what."""

    url: str
    answer: EvaluationAnswer


class Engines:
    """The policy engines that this orchestrator may ask.

    Args:
        client: closed by its owner.
        urls: tried in turn.
        key: mints tokens of scope ``policy:refresh``.
        environment: audience of those tokens.
    """

    def __init__(self, client: httpx.AsyncClient, *, urls: Sequence[str], key: ClientKey, environment: str) -> None:
        self._client = client
        self._urls = tuple(urls)
        self._key = key
        self._environment = environment
        self._token = ""
        self._renew_at = datetime.min.replace(tzinfo=UTC)

    async def ask(
        self, request: EvaluationRequest, *, authorization: str | None, refresh: bool, only: str | None = None
    ) -> Asked:
        """Return the decision of the first engine that gives one.

        Args:
            request: what to decide about.
            authorization: of the caller, passed on: the probe tenant needs it there as well.
            refresh: make the engine read the current constitution first.
            only: ask this one and no other.

        Raises:
            EngineUnreachableError: none did; says why for each.
        """
        reasons: list[str] = []
        try:
            async with asyncio.timeout(BUDGET_SECONDS):
                for url in (only,) if only else self._urls:
                    try:
                        return await self._ask_one(url, request, authorization=authorization, refresh=refresh)
                    except UnavailableError as error:
                        reasons.append(error.message)
        except TimeoutError:
            reasons.append(f"{BUDGET_SECONDS:.0f} s are over")
        raise EngineUnreachableError("no policy engine decided: " + "; ".join(reasons))

    async def _ask_one(
        self, url: str, request: EvaluationRequest, *, authorization: str | None, refresh: bool
    ) -> Asked:
        if refresh:
            await self._post(f"{url}/v1/policy/refresh", b"", self._own_token(), PolicyStatus, REFRESH_TIMEOUT)
        body = request.model_dump_json().encode()
        answer = await self._post(f"{url}/v1/evaluate", body, authorization, EvaluationAnswer, TIMEOUT)
        return Asked(url=url, answer=answer)

    async def _post(
        self, url: str, body: bytes, authorization: str | None, kind: type[_Answer], limit: httpx.Timeout
    ) -> _Answer:
        headers = {"Accept-Encoding": "identity"}  # a compressed answer grows beyond any bound while it is unpacked
        if body:
            headers["Content-Type"] = "application/json"
        if authorization:
            headers["Authorization"] = authorization
        content = bytearray()
        try:
            async with self._client.stream("POST", url, content=body, headers=headers, timeout=limit) as response:
                encoding = response.headers.get("content-encoding", "identity")
                if encoding != "identity":
                    raise UnavailableError(f"{host_of(url)} answered compressed ({encoding[:40]}), unasked")
                async for part in response.aiter_raw():
                    content += part
                    if len(content) > MAX_ANSWER:
                        raise UnavailableError(f"{host_of(url)} answered with more than {MAX_ANSWER} bytes")
        except httpx.HTTPError as error:
            raise UnavailableError(f"{host_of(url)}: {type(error).__name__}") from error
        if response.status_code != httpx.codes.OK:
            raise UnavailableError(f"{host_of(url)} answered {response.status_code}: {bytes(content[:200])!r}")
        try:
            return kind.model_validate_json(bytes(content))
        except ValidationError as error:
            raise UnavailableError(f"{host_of(url)} answered with something else than {kind.__name__}") from error

    def _own_token(self) -> str:
        now = datetime.now(UTC)
        if now >= self._renew_at:
            self._token = mint(
                self._key, environment=self._environment, scopes=("policy:refresh",), now=now, ttl=TOKEN_LIFETIME
            )
            self._renew_at = now + TOKEN_RENEWAL
        return f"Bearer {self._token}"
