"""A stack with everything: under any folder's name it comes up, each process knows what it needs, none outlives it.

The tests share it, in this order; the last one kills it.
"""

import json
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client

from adapters.setting_names import unread
from constitution.environment import Environment
from constitution.names import Names
from deploy.embedded.catalogue import ALL_NAMES
from deploy.embedded.stack import Stack
from tests.helpers import eventually, eventually_sync
from tests.integration.supervised import GONE, alive, family, nothing_left, supervisor

# Fourteen processes on two busy cores.
pytestmark = pytest.mark.timeout(300)
READY = timedelta(seconds=60)

# Settings that hold a secret, and who may know them.
KNOWN_BY = {
    "DATABASE_URL": {"constitution-service"},
    "DATABASE_READER_URL": {"worker"},
    "DATABASE_MIGRATION_URL": set(),
    "DATABASE_ADMIN_URL": set(),
    "REDIS_URL": {"constitution-service", "worker"},
    "SLACK_BOT_TOKEN": {"worker"},
    "SLACK_READER_TOKEN": set(),
    "SLACK_ADMIN_TOKEN": set(),
    "KAFKA_PASSWORD": {
        "constitution-service",
        "policy-engine-1",
        "policy-engine-2",
        "orchestrator-1",
        "orchestrator-2",
        "siem-forwarder",
        "worker",
    },
}


OURS = KNOWN_BY["KAFKA_PASSWORD"] | {"assessor"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the stack's folder is, and nothing else may be."""
    return tmp_path_factory.mktemp("whole")


@pytest.fixture(scope="module")
def whole(folder: Path) -> Iterator[Stack]:
    """A stack with everything, in a folder whose name each program could split, expand or read in another encoding."""
    directory = folder / "st*r[1] {a,b}" / r"Zoë, O'Brien ${HOME} 50%41 #1 ?x co:lon \"q" / "var"
    stack = Stack(directory, environment={})
    stack.start()
    yield stack
    stack.erase()


def environment_of(stack: Stack, name: str) -> dict[str, str]:
    pid = next(status.pid for status in stack.status() if status.name == name)
    words = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(word.split("=", 1) for word in words if "=" in word)


class TestAnyFolder:
    @pytest.mark.slow
    def test_nothing_is_written_elsewhere(self, whole: Stack, folder: Path) -> None:
        assert [path.name for path in folder.iterdir()] == ["st*r[1] {a,b}"]
        directory = whole.directory
        assert list(directory.parent.iterdir()) == [directory]
        assert (directory / "temporal" / "temporal.sqlite").exists()
        assert (directory / "kafka" / "log" / "meta.properties").exists()
        assert (directory / "valkey" / "appendonlydir").exists()
        assert (directory / "prometheus" / "data").exists()

    def test_a_shell_reads_its_settings(self, whole: Stack) -> None:
        script = 'set -a; source "$0"; printenv PROMETHEUS_TARGETS REDIS_URL'
        command = ["bash", "-euc", script, str(whole.directory / "stack.env")]
        shown = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - our own file
        settings = whole.settings()
        assert shown.stdout.splitlines() == [settings["PROMETHEUS_TARGETS"], settings["REDIS_URL"]]
        assert Path(settings["PROMETHEUS_TARGETS"]).is_dir()


class TestServices:
    def test_everything_runs_and_answers(self, whole: Stack) -> None:
        assert {status.name: status.state for status in whole.status()} == dict.fromkeys(ALL_NAMES, "running")

    def test_a_process_of_ours_starts_with_all_of_the_stacks_settings(self, whole: Stack) -> None:
        assert unread(whole.settings()) == ()

    def test_each_service_knows_only_the_secrets_that_it_needs(self, whole: Stack) -> None:
        known = {name: environment_of(whole, name) for name in OURS}
        settings = whole.settings()
        for setting, allowed in KNOWN_BY.items():
            assert {name for name in OURS if settings[setting] in known[name].values()} == allowed, setting
        assert {name for name in OURS if "ASSESSOR_KEY_FILE" in known[name]} == {"assessor"}
        keys = [known[name]["CLIENT_KEY_FILE"] for name in ("assessor", "worker")]
        assert len({*keys, known["assessor"]["ASSESSOR_KEY_FILE"]}) == 3

    async def test_prometheus_scrapes_each_of_them(self, whole: Stack) -> None:
        async with httpx.AsyncClient(trust_env=False, base_url=whole.settings()["PROMETHEUS_URL"]) as client:

            async def scraped() -> bool:
                answer = (await client.get("/api/v1/query", params={"query": "up == 1"})).json()
                targets = {sample["metric"]["target"] for sample in answer["data"]["result"]}
                assert targets == OURS
                return True

            await eventually(scraped, READY)

    @pytest.mark.parametrize(
        ("queue", "kind"),
        [
            (Names().task_queue(), TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW),
            (Names().assessor_queue(), TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY),
        ],
    )
    async def test_worker_and_assessor_poll_a_task_queue_each(
        self, whole: Stack, queue: str, kind: TaskQueueType.ValueType
    ) -> None:
        settings = whole.settings()
        client = await Client.connect(settings["TEMPORAL_ADDRESS"], namespace=settings["TEMPORAL_NAMESPACE"])
        request = DescribeTaskQueueRequest(
            namespace=client.namespace,
            task_queue=TaskQueue(name=queue),
            task_queue_type=kind,
        )

        async def polled() -> bool:
            return len((await client.workflow_service.describe_task_queue(request)).pollers) > 0

        await eventually(polled, READY)

    def test_the_environment_names_every_target_where_it_answers(self, whole: Stack) -> None:
        environment = Environment.parse(Path(whole.settings()["ENVIRONMENT_FILE"]).read_text())
        for target in environment.targets:
            status = httpx.get(f"{target.url}/v1/policy", trust_env=False).json()
            assert (status["target"], status["generation"]) == (target.id, 0)

    def test_a_killed_target_is_named_and_comes_back_where_it_was(self, whole: Stack) -> None:
        before = whole.settings()
        whole.kill("policy-engine-2")
        eventually_sync(lambda: [status.name for status in whole.status() if not status.healthy] == ["policy-engine-2"])
        whole.restart("policy-engine-2")
        assert whole.settings() == before
        assert all(status.healthy for status in whole.status())


class TestProcesses:
    def test_no_argument_list_holds_a_password(self, whole: Stack) -> None:
        state = json.loads((whole.directory / "run" / "state.json").read_text())
        assert len(state["secrets"]) >= 6
        arguments = " ".join(" ".join(process.cmdline()) for process in family(whole))
        assert "kafka.Kafka" in arguments
        assert [name for name, secret in state["secrets"].items() if secret in arguments] == []

    def test_sigkill_of_the_supervisor_leaves_no_process_of_any_server(self, whole: Stack) -> None:
        processes = family(whole)
        servers = {"java", "node", "postgres", "temporal", "prometheus", "valkey-server"}
        assert servers <= set(alive(processes))
        assert len([name for name in alive(processes) if name.startswith("python")]) >= len(OURS)
        supervisor(whole).kill()
        eventually_sync(lambda: alive(processes) == [], GONE)
        assert nothing_left(whole.directory)
        whole.stop()
