"""What a deploy does with workers: ends one as an orchestrator of processes would, starts one more of another build."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from temporalio.client import WorkflowHistory

from tests.consumers_support import CHECKOUT, Process
from tests.helpers import eventually
from tests.ports import free_port
from tests.workflow.outcomes import Handle
from tests.workflow.town import SOON, Town

UP = timedelta(seconds=60)


async def terminate(town: Town, name: str = "worker") -> None:
    """SIGTERM; returns at once."""
    await asyncio.to_thread(town.stack.kill, name, signal.SIGTERM)


async def ended(town: Town, name: str = "worker", deadline: timedelta = SOON) -> str:
    """Wait until it is gone; return how it ended, in the stack's words."""

    async def dead() -> str | None:
        status = next(status for status in await asyncio.to_thread(town.stack.status) if status.name == name)
        return status.detail if status.state == "dead" else None

    said = await eventually(dead, deadline)
    assert said is not None
    return said


def log_of(town: Town, name: str = "worker") -> str:
    """What it has written so far, of all its lives."""
    return (town.directory / "log" / f"{name}.log").read_text(errors="replace")


async def draining(town: Town, before: str) -> None:
    """Wait until the worker says so; `before` is its log before it was told."""
    await eventually(lambda: "worker: draining" in log_of(town)[len(before) :], SOON)


@asynccontextmanager
async def one_more(town: Town, **settings: str) -> AsyncIterator[Process]:
    """Start a second worker with the first one's settings and these, and wait until it polls."""
    environment = _environment_of(await _pid(town)) | {"METRICS_PORT": str(free_port()), **settings}
    worker = Process([str(CHECKOUT / "worker.py")], environment, town.directory / "log" / f"worker-{free_port()}.log")

    def polls() -> bool:
        assert worker.process is not None
        if worker.process.poll() is not None:
            raise RuntimeError(f"it ended: {worker.output()[-2000:]}")
        return "worker: polling" in worker.output()

    worker.start()
    try:
        await eventually(polls, UP)
        yield worker
    finally:
        worker.kill()


async def _pid(town: Town) -> int:
    statuses = await asyncio.to_thread(town.stack.status)
    found = next(status.pid for status in statuses if status.name == "worker")
    assert found is not None
    return found


def _environment_of(pid: int) -> dict[str, str]:
    pairs = Path(f"/proc/{pid}/environ").read_bytes().rstrip(b"\0").split(b"\0")
    return {name: value for name, _, value in (os.fsdecode(pair).partition("=") for pair in pairs)}


async def make_current(town: Town, deployment: str, build: str) -> None:
    """Have new runs begin on a build, by Temporal's own command line; it must have been seen polling."""

    async def done() -> bool:
        code, _, err = await town.temporal(
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
