"""What a deploy does with workers: ends one as an orchestrator of processes would, starts one more of another build."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from temporalio.client import WorkflowHistory

from tests.helpers import eventually
from tests.ports import free_port
from tests.workflow.outcomes import Handle
from tests.world.environment import SOON, RunningEnvironment
from tests.world.processes import Process, second_worker


async def terminate(env: RunningEnvironment, name: str = "worker") -> None:
    """SIGTERM; returns at once."""
    await asyncio.to_thread(env.stack.kill, name, signal.SIGTERM)


async def ended(env: RunningEnvironment, name: str = "worker", deadline: timedelta = SOON) -> str:
    """Wait until it is gone; return how it ended, in the stack's words."""

    async def dead() -> str | None:
        status = next(status for status in await asyncio.to_thread(env.stack.status) if status.name == name)
        return status.detail if status.state == "dead" else None

    said = await eventually(dead, deadline)
    assert said is not None
    return said


def log_of(env: RunningEnvironment, name: str = "worker") -> str:
    """What it has written so far, of all its lives."""
    return (env.directory / "log" / f"{name}.log").read_text(errors="replace")


async def draining(env: RunningEnvironment, before: str) -> None:
    """Wait until the worker says so; `before` is its log before it was told."""
    await eventually(lambda: "worker: draining" in log_of(env)[len(before) :], SOON)


@asynccontextmanager
async def one_more(env: RunningEnvironment, **settings: str) -> AsyncIterator[Process]:
    """Start a second worker with the first one's settings and these, and wait until it polls."""
    statuses = await asyncio.to_thread(env.stack.status)
    first = next(status.pid for status in statuses if status.name == "worker")
    assert first is not None
    log = env.directory / "log" / f"worker-{free_port()}.log"
    async with second_worker(first, log, **settings) as worker:
        yield worker


async def make_current(env: RunningEnvironment, deployment: str, build: str) -> None:
    """Have new runs begin on a build, by Temporal's own command line; it must have been seen polling."""

    async def done() -> bool:
        code, _, err = await env.temporal(
            "worker", "deployment", "set-current-version", "--deployment-name", deployment, "--build-id", build, "--yes"
        )
        assert code == 0, err
        return True

    await eventually(done, SOON)


async def build_of(handle: Handle) -> str:
    """The build to which a run is pinned, or that carried out its last workflow task."""
    info = (await handle.describe()).raw_description.workflow_execution_info.versioning_info
    return info.deployment_version.build_id


def builds(history: WorkflowHistory) -> set[str]:
    """The builds that carried out workflow tasks of a run, as the identities of their workers say."""
    return {
        event.workflow_task_completed_event_attributes.identity.rpartition("@")[2]
        for event in history.events
        if event.HasField("workflow_task_completed_event_attributes")
    }


def attempts(history: WorkflowHistory, activity: str) -> list[int]:
    """The attempt at which each execution of an activity was last started."""
    scheduled = {
        event.event_id
        for event in history.events
        if event.HasField("activity_task_scheduled_event_attributes")
        and event.activity_task_scheduled_event_attributes.activity_type.name == activity
    }
    return [
        event.activity_task_started_event_attributes.attempt
        for event in history.events
        if event.HasField("activity_task_started_event_attributes")
        and event.activity_task_started_event_attributes.scheduled_event_id in scheduled
    ]
