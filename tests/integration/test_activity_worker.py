"""worker.py as a process: it starts, polls, drains at SIGTERM, and says everything that is wrong with its settings."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client

from constitution.names import Names
from tests.helpers import eventually
from tests.world.files import CHECKOUT, EnvironmentFiles
from tests.world.processes import Process
from tests.world.trust import next_version

START = timedelta(seconds=40)


@pytest.fixture
async def worker(worker_settings: dict[str, str], tmp_path: Path) -> AsyncIterator[Process]:
    process = Process([str(CHECKOUT / "worker.py")], worker_settings, tmp_path / "worker.log")
    yield process
    process.kill()


async def polling(worker: Process) -> None:
    def says_so() -> bool:
        assert worker.process is not None
        assert worker.process.poll() is None, worker.output()
        return "worker: polling" in worker.output()

    await eventually(says_so, START)


async def run_once(settings: dict[str, str]) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(CHECKOUT / "worker.py"),
        env={"PATH": os.environ["PATH"], **settings},
        cwd=CHECKOUT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, said.decode()


async def test_it_polls_and_shows_metrics_and_drains_at_sigterm(
    *,
    worker: Process,
    worker_settings: dict[str, str],
    worker_files: EnvironmentFiles,
    temporal_client: Client,
    namespace: str,
) -> None:
    worker.start()
    await polling(worker)
    task_queue = Names(namespace).task_queue()

    async def is_polled() -> bool:
        answer = await temporal_client.workflow_service.describe_task_queue(
            DescribeTaskQueueRequest(
                namespace=worker_settings["TEMPORAL_NAMESPACE"],
                task_queue=TaskQueue(name=task_queue),
                task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
            )
        )
        identities = [poller.identity for poller in answer.pollers]
        ours = re.compile(rf"/{worker.pid}#[0-9a-f]+@[0-9a-z.]+-[0-9a-f]{{12}}$")
        return any(ours.search(identity) for identity in identities)

    await eventually(is_polled, START)
    async with httpx.AsyncClient(trust_env=False) as http:

        async def metrics() -> str:
            return (await http.get(f"http://127.0.0.1:{worker_settings['METRICS_PORT']}/metrics")).text

        assert "temporal_num_pollers" in await metrics()
        next_version(worker_files, ("rollback = 2", "rollback = 3"))

        async def taken() -> bool:
            return re.search(r"^trust_policy_version(\{.*\})? 2$", await metrics(), re.MULTILINE) is not None

        await eventually(taken)
        (worker_files.directory / "trust" / "versions" / "3.json").write_text("{}")

        async def refused() -> bool:
            return re.search(r"^trust_policy_refused_total(\{.*\})? 1$", await metrics(), re.MULTILINE) is not None

        await eventually(refused)
    assert worker.stop() == 0, worker.output()
    assert "worker: draining" in worker.output()


async def test_it_carries_out_a_workflow_and_a_second_signal_ends_it_at_once(
    worker: Process, temporal_client: Client, namespace: str
) -> None:
    worker.start()
    await polling(worker)
    handle = await temporal_client.start_workflow(
        "ConstitutionRollback", {"nonsense": 1}, id=f"{namespace}/refused", task_queue=Names(namespace).task_queue()
    )

    async def has_asked() -> bool:
        history = await handle.fetch_history()
        return any(event.HasField("activity_task_completed_event_attributes") for event in history.events)

    await eventually(has_asked, START)
    worker.send(signal.SIGTERM)
    await eventually(lambda: "worker: draining" in worker.output(), START)
    assert worker.stop() in {0, 1}, worker.output()  # 1: the second signal came while it was still draining
    await handle.terminate()


async def test_every_problem_of_the_settings_is_listed_at_once_and_no_secret_is_told(
    worker_settings: dict[str, str], tmp_path: Path
) -> None:
    code, said = await run_once({})
    assert code == 2
    for name in ("ENVIRONMENT_FILE", "DATABASE_READER_URL", "REDIS_URL", "KAFKA_BOOTSTRAP_SERVERS", "SLACK_BOT_TOKEN"):
        assert f"  - {name}: " in said
    bad = worker_settings | {
        "DATABASE_READER_URL": "mysql://reader:hunter2@127.0.0.1/x",
        "METRICS_PORT": "0",
        "SLACK_BOT_TOKEN": "  ",
    }
    code, said = await run_once(bad)
    assert code == 2
    assert [
        name for name in ("DATABASE_READER_URL", "METRICS_PORT", "SLACK_BOT_TOKEN") if f"- {name}: " not in said
    ] == []
    assert "hunter2" not in said
    key = tmp_path / "no-key.jwk"
    key.write_text("{}")
    plain = tmp_path / "plain"
    plain.mkdir()
    trust = Path(worker_settings["ENVIRONMENT_FILE"]).parent / "trust" / "trust.toml"
    trust.write_text(trust.read_text().replace("approval = 2", "approval = 9"))
    code, said = await run_once(worker_settings | {"CLIENT_KEY_FILE": str(key), "ARCHIVE_REPOSITORY": str(plain)})
    assert code == 2
    for name in ("CLIENT_KEY_FILE", "ARCHIVE_REPOSITORY", "/thresholds/approval"):
        assert f"- {name}: " in said


@pytest.mark.slow
async def test_a_taken_metrics_port_and_a_silent_temporal_end_it_with_1(worker_settings: dict[str, str]) -> None:
    server = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        code, said = await run_once(worker_settings | {"METRICS_PORT": str(port)})
    finally:
        server.close()
    assert code == 1
    assert "METRICS_PORT" in said
