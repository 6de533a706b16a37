"""A rolling restart of everything of ours, again and again, while releases are made and others read."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Never

import httpx
import pytest

from deploy.embedded.loopback import loopback
from tests.workflow import outcomes
from tests.workflow.replicas import Replica, restart_first
from tests.world.author import Author
from tests.world.environment import Environments, RunningEnvironment
from tests.world.meanwhile import meanwhile
from tests.world.nginx import Balancer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

RELEASES = 20
SYNC = 60  # seconds, as production's default: an engine that is being restarted is waited for
BETWEEN_READS = timedelta(milliseconds=50)
UNDECIDED = {"no_constitution", "stale", "expired"}  # an engine that is asked before it obeys what is live
LATE = timedelta(seconds=120)
SECOND = {  # the first process, and the module of the service
    "worker": None,
    "assessor": None,
    "constitution-service": "constitution_service",  # its relay, too: one of the two leads
    "siem-forwarder": "siem_forwarder",
}


@dataclass
class Reads:
    """What the readers were answered."""

    answered: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def going_on(self, urls: dict[str, str]) -> AsyncIterator[None]:
        """Read the current release and have requests decided, without an end, each at its one address."""
        async with loopback(30) as http:
            request = {"tenant": "acme", "agent": "a", "action": "tool.call", "time": datetime.now(UTC).isoformat()}
            async with meanwhile(
                self._read("release", lambda: http.get(f"{urls['service']}/v1/constitution")),
                self._read("decision", lambda: http.post(f"{urls['engines']}/v1/evaluate", json=request)),
            ):
                yield

    async def _read(self, what: str, ask: Callable[[], Awaitable[httpx.Response]]) -> Never:
        while True:
            try:
                answer = await ask()
            except httpx.HTTPError as error:
                self.failed.append(f"{what}: {type(error).__name__} {error}")
            else:
                if answer.status_code == httpx.codes.OK and answer.json().get("reason") not in UNDECIDED:
                    self.answered[what] += 1
                else:
                    self.failed.append(f"{what}: {answer.status_code} {answer.text[:200]}")
            await asyncio.sleep(BETWEEN_READS.total_seconds())


class Rolling:
    """Restarts one process after the other, in a circle; the next one waits until the last is healthy."""

    def __init__(self, env: RunningEnvironment, seconds: dict[str, Replica]) -> None:
        self._env, self._seconds = env, seconds
        self._end = asyncio.Event()
        self.restarts: Counter[str] = Counter()

    async def _go_round(self) -> None:
        for name in (*self._seconds, "policy-engine-1", "policy-engine-2"):
            restarts: list[Callable[[], Awaitable[None]]] = [partial(restart_first, self._env, name)]
            if name in self._seconds:
                restarts.append(self._seconds[name].restart)
            for restart in restarts:
                await restart()
                self.restarts[name] += 1
                if self._end.is_set():
                    return

    async def _until_the_end(self) -> None:
        while not self._end.is_set():
            await self._go_round()

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator["asyncio.Task[None]"]:
        """Restart until the block ends; the restart that is under way then is finished."""
        task = asyncio.create_task(self._until_the_end())
        try:
            yield task
        finally:
            self._end.set()
            await task


@pytest.fixture
async def doubled(
    environments: Environments, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[RunningEnvironment, dict[str, Replica], dict[str, str]]]:
    """An environment with two of everything, each pair behind one address. Something is live."""
    made = environments.with_settings(DRAIN_SECONDS="10")
    env = await made.running()
    seconds: dict[str, Replica] = {}
    try:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(env.configured(sync=SYNC))
            await env.live()
            spool = env.directory / "second-spool"
            spool.mkdir(mode=0o700)
            for name, module in SECOND.items():
                own = {"SPOOL_DIRECTORY": str(spool)} if name == "constitution-service" else {}
                seconds[name] = Replica(env, name, module, **own)
                await seconds[name].start()
            urls = {}
            for name, ports in (
                ("service", (env.port("constitution-service"), seconds["constitution-service"].port)),
                ("engines", (env.port("policy-engine-1"), env.port("policy-engine-2"))),
            ):
                folder = tmp_path_factory.mktemp(name)
                balancer = Balancer(ports, folder=folder, unready=name == "engines")
                urls[name] = f"http://{await stack.enter_async_context(balancer.running())}"
            env.service_wire.upstream = lambda: ("127.0.0.1", int(urls["service"].rpartition(":")[2]))
            await env.author.aclose()
            env.author = Author(env.files, urls["service"])
            env.service = env.author.operator
            yield env, seconds, urls
            for second in seconds.values():
                await second.stop()
    finally:
        for second in seconds.values():
            second.kill()
        await made.leave()


async def test_no_read_fails_and_no_outcome_is_wrong(
    doubled: tuple[RunningEnvironment, dict[str, Replica], dict[str, str]],
) -> None:
    env, seconds, urls = doubled
    reads, rolling = Reads(), Rolling(env, seconds)
    generations = []
    async with reads.going_on(urls), rolling.going_on() as restarting:
        for _ in range(RELEASES):
            proposal = await env.author.propose()
            handle = await env.update(proposal)
            await env.approve(handle, proposal, deadline=LATE)
            generations.append((await outcomes.completed(env, handle, proposal)).generation)
            assert not restarting.done(), restarting.exception()
    await env.rest()
    assert generations == list(range(generations[0], generations[0] + RELEASES))
    assert Counter(reads.failed) == {}
    assert min(reads.answered["release"], reads.answered["decision"]) > RELEASES
    assert min(rolling.restarts.values()) >= 2, rolling.restarts
    print(f"{RELEASES} releases, {dict(rolling.restarts)} restarts, {dict(reads.answered)} reads")  # noqa: T201
