"""The worker dies by SIGKILL in mid-step and comes back: the outcome is true, and nothing happened twice."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta

import pytest

from constitution.release import CurrentConstitution
from tests.workflow import outcomes
from tests.workflow.outcomes import Handle
from tests.world.author import Proposal
from tests.world.environment import LEAF, RunningEnvironment

# An activity that died with its worker is tried again when its heartbeat, or the time of its attempt, has run out.
pytestmark = pytest.mark.timeout(240)
LATE = timedelta(seconds=150)

Moment = Callable[[RunningEnvironment, Handle, Proposal], AbstractAsyncContextManager[None]]
"""Brings a run to one exact moment and keeps it there until the block ends."""


def request(method: str, path: str, body: bytes = b"", *, answered: bool = False, slack: bool = False) -> Moment:
    """The moment in which a request, or its answer, is under way."""

    @asynccontextmanager
    async def moment(env: RunningEnvironment, handle: Handle, proposal: Proposal) -> AsyncIterator[None]:
        wire = env.slack_wire if slack else env.service_wire
        with wire.holding(method, path, body, answered=answered) as held:
            if "blobs" not in path:
                await env.approve(handle, proposal)
            await held.reached()
            yield

    return moment


def standing_still(process: str, step: str) -> Moment:
    """The moment in which a step waits for a process that stands still."""

    @asynccontextmanager
    async def moment(env: RunningEnvironment, handle: Handle, proposal: Proposal) -> AsyncIterator[None]:
        async with env.paused(process):
            await env.approve(handle, proposal)
            await env.until_step(handle, step)
            yield

    return moment


MOMENTS = {
    "gate": request("POST", "/v1/constitution/blobs"),
    "publish: loaded, and nobody knows": request("POST", "/v1/constitution/load", answered=True),
    "publish: about to load": request("POST", "/v1/constitution/load"),
    "sync": standing_still(LEAF, "sync"),
    "confirm: confirmed, and nobody knows": request("POST", "/standing", answered=True),
    "broadcast: posted, and nobody knows": request("POST", "chat.postMessage", b"completed", answered=True, slack=True),
    "archive": standing_still("siem-forwarder", "archive"),
}


VICTIMS = {"gate": "assessor", "sync": "assessor"}


# The others wait out the same timeouts for moments that are like these: `make test-slow`.
ALWAYS = ("publish: loaded, and nobody knows",)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in ALWAYS else pytest.mark.slow) for name in MOMENTS]
)
async def test_a_worker_that_is_killed_in_mid_step(
    env: RunningEnvironment, live: CurrentConstitution, name: str
) -> None:
    proposal = await env.author.propose()
    handle = await env.update(proposal)
    async with MOMENTS[name](env, handle, proposal):
        await env.kill(VICTIMS.get(name, "worker"))
    await env.restart(VICTIMS.get(name, "worker"))
    if name == "gate":
        await env.approve(handle, proposal, deadline=LATE)
    release = await outcomes.completed(env, handle, proposal)
    assert release.generation == live.generation + 1
    audited = env.reads.audited(handle.id)
    assert audited.count("update.completed") == 1


@pytest.mark.slow
async def test_a_worker_that_is_killed_while_it_undoes(env: RunningEnvironment, live: CurrentConstitution) -> None:
    async with env.paused(LEAF):
        handle, proposal = await env.approved()
        await env.until_step(handle, "sync")
        with env.service_wire.holding("POST", "/v1/constitution/load", answered=True) as load:
            await env.steer(handle, "abort", "a mistake")
            await load.reached()
            await env.kill("worker")
        await env.go_on(LEAF)
    await env.restart("worker")
    _, undoing = await outcomes.rolled_back(env, handle, proposal, live)
    assert undoing.generation == live.generation + 2
