"""A small attack in every test run; the whole of it is `make attack`."""

import os
from collections.abc import AsyncIterator

import pytest
from temporalio.client import Client

from deploy.embedded.stack_directory import CHECKOUT
from tests.attack.campaign import SETTINGS, campaign
from tests.world.environment import Environments, RunningEnvironment

ACTS = 120


@pytest.fixture
async def attacked(
    servers: dict[str, str], template_database: str, temporal_client: Client
) -> AsyncIterator[RunningEnvironment]:
    """An environment of its own: the attack leaves marks everywhere."""
    prefix = CHECKOUT / "var" / f"test-{os.getpid()}-attacked"
    environments = Environments(
        servers,
        temporal_client,
        prefix,
        template=template_database,
        settings=SETTINGS,
    )
    yield await environments.running()
    await environments.leave()


@pytest.mark.timeout(600)
async def test_whoever_reaches_temporal_and_has_no_key_decides_nothing(attacked: RunningEnvironment) -> None:
    report = await campaign(attacked, ACTS, seed=20261130, say=lambda _: None)
    assert report.findings == []
    assert report.tally.tried.total() >= ACTS
