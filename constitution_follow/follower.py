"""The policy engine inside your own program: what ``import constitution_follow`` is for."""

import asyncio
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from prometheus_client import CollectorRegistry

from constitution.api import ReadyReport
from constitution.errors import UnavailableError
from constitution.names import DEFAULT_RING
from constitution.policy.consumer_api import EvaluationAnswer, PolicyStatus
from constitution.policy.evaluation import EvaluationRequest
from constitution.policy.lapse import Caution
from constitution.trust.trust_policy import TrustPolicy
from constitution_follow.decisions import DecisionMetrics
from constitution_follow.engine import Engine
from constitution_follow.following import Following, Hints, Source
from signatures.trust_holder import TrustHolder

OBEY = Caution()  # what the signed document says
LOOK_SECONDS = 0.02


class Follower:
    """Obeys the current constitution while ``async with`` lasts; decides in microseconds, without a call to anybody.

    Args:
        service: address of constitution-service.
        trust: the trust policy, or its file (``trust.toml``), which must come to this machine by a road that you trust.
        target: id of this replica. Name it in ``environment.toml`` to have releases wait until it obeys.
        ring: whose releases are obeyed.
        caution: at the least so strict when stale or expired, whatever the document says.
        tenants: counted by name; the others count as ``other``.
        poll_seconds: between two reads.
        max_staleness_seconds: without contact before it is stale.
        hints: tell of a release at once; None: the poll is all.
        registry: where Prometheus metrics go, under the policy engine's names, so that a watch counts them, too.
        wait_seconds: how long entering waits for the first read.

    Raises:
        InvalidRequestError: the trust policy cannot be used.
    """

    def __init__(
        self,
        *,
        service: str,
        trust: TrustPolicy | Path | str,
        target: str,
        ring: str = DEFAULT_RING,
        caution: Caution = OBEY,
        tenants: Iterable[str] = (),
        poll_seconds: float = 5.0,
        max_staleness_seconds: float = 60.0,
        hints: Hints | None = None,
        registry: CollectorRegistry | None = None,
        wait_seconds: float = 10.0,
    ) -> None:
        self.registry = registry if registry is not None else CollectorRegistry()
        source = Source(
            service=service,
            trust=TrustHolder(trust) if isinstance(trust, TrustPolicy) else TrustHolder.load(Path(trust)),
            target=target,
            ring=ring,
            poll_seconds=poll_seconds,
            max_staleness_seconds=max_staleness_seconds,
        )
        self._following = Following(source, self.registry, prefix="policy_engine", hints=hints)
        metrics = DecisionMetrics(self.registry, tenants=tenants, target=target)
        self._engine = Engine(self._following, caution=caution, metrics=metrics)
        self._wait_seconds = wait_seconds
        self._exit = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Follow, and wait for the first read.

        Raises:
            UnavailableError: current could not be read and verified in time; nothing may be decided without it.
        """
        async with AsyncExitStack() as stack:
            replica = await stack.enter_async_context(self._following.running())
            until = asyncio.get_running_loop().time() + self._wait_seconds
            while replica.status().state == "starting":
                if asyncio.get_running_loop().time() >= until:
                    replica.view()  # says why
                await asyncio.sleep(LOOK_SECONDS)
            self._exit = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End following."""
        await self._exit.aclose()

    def evaluate(self, request: EvaluationRequest) -> EvaluationAnswer:
        """Decide about a request by the constitution in force. Never waits; may be called from one thread.

        Raises:
            UnavailableError: outside of ``async with``.
        """
        return self._engine.evaluate(request)

    def evaluate_all(self, requests: Iterable[EvaluationRequest]) -> list[EvaluationAnswer]:
        """Decide about several by one and the same release, in their order.

        Raises:
            UnavailableError: outside of ``async with``.
        """
        return self._engine.evaluate_all(requests)

    def status(self) -> PolicyStatus:
        """Return what is obeyed, since when, and what was last wrong: answer ``GET /v1/policy`` with it to be a target.

        Raises:
            UnavailableError: outside of ``async with``.
        """
        return self._following.replica.status()

    async def refresh(self) -> PolicyStatus:
        """Read and verify the current constitution now.

        Raises:
            UnavailableError: no answer; what was obeyed still is.
            UntrustedError: the answer does not verify; what was obeyed still is.
        """
        return await self._following.replica.refresh()

    async def ready(self) -> ReadyReport:
        """Say whether it obeys something, and what is wrong."""
        try:
            return await self._following.ready()
        except UnavailableError as error:
            return ReadyReport(status="unavailable", checks={"constitution": error.message})
