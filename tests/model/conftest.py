"""The model check's environments: of its own, because a program may leave one that nobody knows."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.database import DirectoryBasedExampleDatabase
from temporalio.client import Client

from deploy.embedded.stack_directory import CHECKOUT
from tests.model.runs import Programs
from tests.world.environment import Environments

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
async def programs(servers: dict[str, str], template_database: str, temporal_client: Client) -> AsyncIterator[Programs]:
    """Where programs are run."""
    prefix = CHECKOUT / "var" / f"test-{os.getpid()}-model"
    environments = Environments(servers, temporal_client, prefix, template=template_database)
    programs = Programs(environments, asyncio.get_running_loop(), CHECKOUT / "var" / "model" / "failing.program")
    yield programs
    sys.stdout.write(f"\n{programs.summary()}\n")
    await environments.leave()
