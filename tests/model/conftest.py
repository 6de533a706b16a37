"""The model check's towns: of its own, because a program may leave one that nobody knows."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.database import DirectoryBasedExampleDatabase
from temporalio.client import Client

from tests.conftest import CHECKOUT
from tests.model.ground import Ground
from tests.workflow.conftest import Towns

settings.register_profile(
    "model",
    max_examples=int(os.environ.get("EXAMPLES") or 20),
    stateful_step_count=int(os.environ.get("STEPS") or 10),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.reuse, Phase.generate, Phase.shrink),  # explaining would run the failing program again and again
    database=DirectoryBasedExampleDatabase(CHECKOUT / "var" / "model" / "examples"),  # the next run begins with these
)


@pytest.fixture(scope="module")
async def towns(
    *,
    temporal_settings: dict[str, str],
    postgres_settings: dict[str, str],
    valkey_settings: dict[str, str],
    kafka_settings: dict[str, str],
    prometheus_settings: dict[str, str],
    slack_settings: dict[str, str],
    template_database: str,
    temporal_client: Client,
) -> AsyncIterator[Towns]:
    """Where towns come from."""
    towns = Towns.on(
        temporal_settings,
        postgres_settings,
        valkey_settings,
        kafka_settings,
        prometheus_settings,
        slack_settings,
        template=template_database,
        client=temporal_client,
    )
    yield towns
    await towns.leave()


@pytest.fixture(scope="module")
async def ground(towns: Towns) -> AsyncIterator[Ground]:
    """Where programs are run."""
    ground = Ground(towns, asyncio.get_running_loop(), CHECKOUT / "var" / "model" / "failing.program")
    yield ground
    sys.stdout.write(f"\n{ground.summary()}\n")
