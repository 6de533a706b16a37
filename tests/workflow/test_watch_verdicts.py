"""Each verdict of the watch with each action that a strategy may declare, once, on the demo's agents' real traffic.

One environment of its own; agents in a process that is made to stand still where a watch must see nothing. Shares are
watched where traffic stops, because a pause leaves their baseline as it was.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from temporalio.client import WorkflowExecutionStatus

from constitution.messages import Phase, Status
from constitution.release import CurrentConstitution, Standing, Verdict
from constitution.trust.attestation import WatchPredicate
from constitution.trust.hold_rules import step_of_watch
from deploy.embedded.stack_directory import CHECKOUT
from signatures.attestations import verify_attestation
from tests.helpers import eventually
from tests.resources import Prometheus
from tests.workflow import outcomes
from tests.workflow.outcomes import Handle
from tests.world.author import Proposal
from tests.world.environment import Environments, RunningEnvironment, needs_a_person, state_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]

WATCH = 24  # with less, the preflight of a busy machine's traffic is blind now and then
BASELINE = 120
STEADY = 60
"""Scrapes with traffic that a baseline holds before anything is watched."""
UNBROKEN = BASELINE - 6
GLIMPSE = 12
"""Evaluations: enough that the watch saw some, far too few to see a doubling."""
MINUTES = timedelta(minutes=3)
ACTIONS = ("continue", "hold", "rollback", "extend_once")


def strategies() -> str:
    """Return a strategy for each verdict but ``ok``, and action."""
    common = f"watch_seconds = {WATCH}\nbaseline_seconds = {BASELINE}\nscrape_seconds = 1.0\n"
    share = 'measure = "share"\nmin_rate = 0.01\ndirection = "up"\n'
    text = ""
    for verdict in ("no_data", "cannot_tell", "anomaly"):
        for action in ACTIONS:
            name = f"{verdict}-{action}".replace("_", "-")
            text += f'\n[strategies.{name}]\n{common}on_{verdict} = "{action}"\n'
            text += "" if verdict == "anomaly" else share
    for action in ("continue", "hold", "rollback"):
        text += f'\n[strategies.blind-{action}]\n{common}on_cannot_tell = "{action}"\n'.replace(
            f"watch_seconds = {WATCH}", "watch_seconds = 1"
        )
    return text


@dataclass
class Watched:
    """An environment with traffic that Prometheus sees."""

    env: RunningEnvironment
    agents: asyncio.subprocess.Process
    prometheus: str
    http: httpx.AsyncClient

    def stop(self) -> None:
        """Let the agents stand still."""
        self.agents.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.agents.send_signal(signal.SIGCONT)

    async def asked(self, query: str) -> float:
        answer = await self.http.get(f"{self.prometheus}/api/v1/query", params={"query": query})
        found = answer.raise_for_status().json()["data"]["result"]
        return float(found[0]["value"][1]) if found else 0.0

    async def evaluations(self) -> float:
        """Agents' evaluations so far, as Prometheus scraped them."""
        return await self.asked(f"sum({self._counter()})")

    async def still(self) -> None:
        """Wait until the counter has stood still for some scrapes: what was asked before is evaluated and scraped."""
        moved = f"sum({self._counter()}) - sum({self._counter()} offset 4s)"

        async def rests() -> bool:
            return await self.asked(moved) == 0

        await eventually(rests, timedelta(seconds=30))

    async def steady(self, scrapes: int = STEADY) -> None:
        """Wait until the newest minutes hold enough scrapes with traffic; a share forgives pauses, a rate does not."""
        moved = f"sum(rate({self._counter()}[3s])) > bool 4"

        async def enough() -> bool:
            return await self.asked(f"sum_over_time(({moved})[{BASELINE}s:1s])") >= scrapes

        await eventually(enough, timedelta(seconds=2 * BASELINE))

    def _counter(self) -> str:
        engines = "|".join(t.id for t in self.env.config.targets if t.kind == "policy_engine")
        return f'policy_engine_evaluations_total{{tenant="global",target=~"{engines}"}}'

    async def release(self, strategy: str, template: str = "data-handling") -> tuple[Handle, Proposal]:
        """Start a watched release and have it approved."""
        handle, proposal = await self.start(strategy, template)
        await self.env.approve(handle, proposal)
        return handle, proposal

    async def start(self, strategy: str, template: str = "data-handling") -> tuple[Handle, Proposal]:
        """Start a watched release."""
        await self.steady(UNBROKEN if strategy.startswith("anomaly") else STEADY)
        proposal = await self.env.author.propose(await self.env.author.next_draft(template))
        return await self.env.update(proposal, strategy=strategy), proposal

    async def held(self, handle: Handle) -> Status:
        """Follow a run until it waits for a person to end a hold."""
        return await self.env.until(handle, waits_for_a_person, MINUTES)

    async def events(self, handle: Handle) -> int:
        return len((await handle.fetch_history()).events)


def waits_for_a_person(status: Status) -> bool:
    return status.phase is Phase.WAITING and "to resume, promote or abort" in status.waiting_for


def watching(status: Status) -> bool:
    return state_of(status, "watch") == "running" and status.generation is not None


@pytest.fixture(scope="module")
async def watched(environments: Environments, prometheus_settings: dict[str, str]) -> AsyncIterator[Watched]:
    """An environment of its own, its engines scraped, agents at work."""
    own = environments.with_settings()
    env = await own.running()
    file = env.files.directory / "environment.toml"
    file.write_text(file.read_text() + strategies())
    await env.restart("worker")
    await env.restart("assessor")
    await env.live()
    url = prometheus_settings["PROMETHEUS_URL"]
    prometheus = Prometheus(url, Path(prometheus_settings["PROMETHEUS_TARGETS"]))
    urls = []
    for target in env.config.targets:
        if target.kind == "policy_engine":
            prometheus.scrape(urlsplit(target.url).netloc, job="policy-engine", target=target.id)
        else:
            urls.append(target.url)
    agents = await asyncio.create_subprocess_exec(
        "setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "deploy.demo.traffic",
        str(CHECKOUT / "deploy" / "demo" / "requests.json"), *urls,
        stdout=asyncio.subprocess.PIPE, cwd=CHECKOUT, env=os.environ,
    )  # fmt: skip
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=10) as http:
            yield Watched(env, agents, url, http)
    finally:
        agents.send_signal(signal.SIGCONT)
        agents.terminate()
        said, _ = await agents.communicate()
        prometheus.forget()
        await env.rest()
        await own.leave()
    assert json.loads(said)["allow"] > 0


@pytest.fixture
async def before(watched: Watched) -> CurrentConstitution:
    """What is live."""
    return await watched.env.live()


@asynccontextmanager
async def blind(watched: Watched, strategy: str, glimpse: int) -> AsyncIterator[tuple[Handle, Proposal]]:
    """Release, with no traffic from before the load until somebody lets it go on, but for so many evaluations."""
    env = watched.env
    with env.service_wire.holding("POST", "/v1/constitution/load") as load:
        handle, proposal = await watched.release(strategy)
        try:
            await load.reached()
            watched.stop()
            await watched.still()
            load.release()
            if glimpse:
                await env.until(handle, watching, MINUTES)
                counted = await watched.evaluations()
                watched.go_on()

                async def seen() -> bool:
                    return await watched.evaluations() >= counted + glimpse

                await eventually(seen, timedelta(seconds=10))
                watched.stop()
            yield handle, proposal
        finally:
            watched.go_on()
            if (await handle.describe()).status is WorkflowExecutionStatus.RUNNING:  # a failed test holds the lease
                await watched.env.steer(handle, "abort", "the test is over")


async def said(watched: Watched, handle: Handle) -> Verdict | None:
    return (await watched.env.status(handle)).verdict


async def test_steady_traffic_is_ok_and_the_release_is_confirmed(watched: Watched) -> None:
    handle, proposal = await watched.release("anomaly-rollback")
    await outcomes.completed(watched.env, handle, proposal)
    assert await said(watched, handle) is Verdict.OK


async def test_an_anomaly_is_rolled_back(watched: Watched, before: CurrentConstitution) -> None:
    handle, proposal = await watched.release("anomaly-rollback", "lockdown")
    await outcomes.rolled_back(watched.env, handle, proposal, before, Standing.POISONED)
    assert await said(watched, handle) is Verdict.ANOMALY


async def test_an_anomaly_that_is_held_waits_quietly_for_a_person(
    watched: Watched, before: CurrentConstitution
) -> None:
    handle, proposal = await watched.release("anomaly-hold", "lockdown")
    status = await watched.held(handle)
    assert status.verdict is Verdict.ANOMALY
    events = await watched.events(handle)
    counted = await watched.evaluations()

    async def more() -> bool:
        return await watched.evaluations() >= counted + 300

    await eventually(more, timedelta(seconds=60))
    # A watch that is asked again answers at once, as its alarm stays raised: that would be thousands of events an hour.
    assert await watched.events(handle) <= events + 2
    assert await watched.env.steer(handle, "abort", "it is the release")
    await outcomes.rolled_back(watched.env, handle, proposal, before, Standing.POISONED)
    assert await said(watched, handle) is Verdict.ANOMALY


@pytest.mark.parametrize("action", ["continue", "hold", "rollback"])
async def test_a_watch_that_would_be_blind_is_found_before_publish_and_treated_as_declared(
    watched: Watched, before: CurrentConstitution, action: str
) -> None:
    env = watched.env
    handle, proposal = await watched.start(f"blind-{action}")  # it is found before anybody is asked to sign
    if action == "continue":
        await env.approve(handle, proposal)
        await outcomes.completed(env, handle, proposal)
        assert await said(watched, handle) is Verdict.CANNOT_TELL
        return
    if action == "hold":
        for _ in range(2):  # one second is not enough now, nor is it when a person asks to look again
            status = await env.until(handle, needs_a_person, MINUTES)
            assert (status.generation, status.step) == (None, "watch")
            assert "not published blind: undetectable" in status.waiting_for
            asked = await watched.events(handle)
            assert await env.steer(handle, "retry")
            await eventually(partial(looked_again, watched, handle, asked), timedelta(seconds=30))
        await env.until(handle, needs_a_person, MINUTES)
        assert await handle.execute_update("abort", {"reason": "too little traffic"})
    await outcomes.rejected(env, handle, proposal, before, "too little" if action == "hold" else "undetectable")


async def attested(watched: Watched, status: Status) -> str:
    """The digest of the evidence of the only watch that was attested of a run's release."""
    envelopes = await watched.env.service.attestations(generation=status.generation)
    said = [verify_attestation(envelope, watched.env.files.trust) for envelope in envelopes]
    [evidence] = [one.evidence for one in said if isinstance(one, WatchPredicate)]
    return evidence


async def looked_again(watched: Watched, handle: Handle, events: int) -> bool:
    return await watched.events(handle) >= events + 5


@pytest.mark.parametrize(("verdict", "glimpse"), [("no-data", 0), ("cannot-tell", GLIMPSE)])
@pytest.mark.parametrize("action", ["continue", "rollback", "hold", "extend-once"])
async def test_what_could_not_be_judged_is_treated_as_declared(
    *, watched: Watched, before: CurrentConstitution, verdict: str, glimpse: int, action: str
) -> None:
    env = watched.env
    expected = {"no-data": Verdict.NO_DATA, "cannot-tell": Verdict.CANNOT_TELL}[verdict]
    async with blind(watched, f"{verdict}-{action}", glimpse) as (handle, proposal):
        match action:
            case "continue":
                await outcomes.completed(env, handle, proposal)
            case "rollback":
                await outcomes.rolled_back(env, handle, proposal, before)
            case "hold":
                await env.until(handle, watching, MINUTES)
                await env.steer(handle, "hold", "let me look")
                assert await env.steer(handle, "resume") == "going on"  # and no word about the verdict that is to come
                status = await watched.held(handle)
                assert status.verdict is expected
                assert [held.name for held in status.held] == [step_of_watch(await attested(watched, status))]
                events = await watched.events(handle)
                watched.go_on()
                await watched.steady()
                assert await watched.events(handle) <= events + 50  # looks at whether the watch was paused by hand
                assert await env.steer(handle, "resume")
                await outcomes.completed(env, handle, proposal)
            case "extend-once":
                await env.until(handle, lambda status: status.verdict is expected, MINUTES)
                watched.go_on()
                await outcomes.completed(env, handle, proposal)
                expected = Verdict.OK  # the second half showed enough
    assert await said(watched, handle) is expected


async def test_an_anomaly_that_is_only_observed_is_recorded_and_confirmed(watched: Watched) -> None:
    handle, proposal = await watched.release("anomaly-continue", "lockdown")
    await outcomes.completed(watched.env, handle, proposal)
    assert await said(watched, handle) is Verdict.ANOMALY
