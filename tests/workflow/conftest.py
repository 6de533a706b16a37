"""An environment for the tests of workflows: started once, and anew only after a test that left it not at rest."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from pathlib import Path

import pytest
from temporalio.client import Client

from constitution.release import CurrentConstitution
from deploy.embedded.stack_directory import CHECKOUT
from tests.workflow.reconciling import CLOSED, EVERY
from tests.world.environment import Environments, RunningEnvironment

_STARTED = pytest.StashKey[tuple[Environments, asyncio.AbstractEventLoop]]()


@pytest.fixture(scope="session")
async def environments(
    servers: dict[str, str], template_database: str, temporal_client: Client, request: pytest.FixtureRequest
) -> AsyncIterator[Environments]:
    """Where environments come from."""
    prefix = CHECKOUT / "var" / f"test-{os.getpid()}-env"
    environments = Environments(servers, temporal_client, prefix, template=template_database)
    request.session.stash[_STARTED] = environments, asyncio.get_running_loop()
    yield environments
    await environments.leave()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, None, None]:
    """End the environment with the last of these tests: idle, it takes a quarter of a core from the others."""
    yield
    started = item.session.stash.get(_STARTED, None)
    if started is not None and nextitem is not None and Path(__file__).parent not in nextitem.path.parents:
        environments, loop = started
        loop.run_until_complete(environments.leave())


_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
    call: pytest.CallInfo[None],  # noqa: ARG001 - the hook's own name
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember whether the test itself failed: its environment is then in a state that nobody knows."""
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    return report


async def at_rest(
    environments: Environments,
    request: pytest.FixtureRequest,
    first: Callable[[RunningEnvironment], Awaitable[None]] | None = None,
) -> AsyncIterator[RunningEnvironment]:
    """An environment at rest, which must be so again after the test; after one that failed this tells where it stood.

    Args:
        environments: where it comes from.
        request: of the test.
        first: waits for what must happen before there can be rest.
    """
    yield await environments.running()
    env = await environments.running()  # the test may have moved to another one
    well = not request.node.stash.get(_FAILED, False)
    try:
        if well:
            env.service_wire.repair()
            env.slack_wire.repair()
            if first is not None:
                await first(env)
            await env.rest()
    except BaseException:
        well = False
        raise
    finally:
        if not well:
            request.node.add_report_section("teardown", "environment", await env.story())
            await environments.leave(keep_logs=True)


@pytest.fixture
async def env(environments: Environments, request: pytest.FixtureRequest) -> AsyncIterator[RunningEnvironment]:
    """An environment at rest."""
    async for env in at_rest(environments, request):
        yield env


@pytest.fixture(scope="module")
async def minded(environments: Environments) -> AsyncIterator[Environments]:
    """Environments that are reconciled."""
    made = environments.with_settings(RECONCILE_SECONDS=str(EVERY), RECONCILE_CLOSED_SECONDS=str(CLOSED))
    yield made
    await made.leave()


@pytest.fixture
async def live(env: RunningEnvironment) -> CurrentConstitution:
    """What is live in the environment: something is."""
    return await env.live()
