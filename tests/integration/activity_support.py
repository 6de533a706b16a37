"""What the tests of activities share: the worker's configuration, and a way to run one."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from temporalio import workflow
from temporalio.client import Client
from temporalio.common import SearchAttributePair, TypedSearchAttributes
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities.archive import ArchiveRelease
from activities.attesting import Attester
from activities.ports import ActivityConfig
from activities.runs import RunRef, RunsActivities
from activities.update_plan import UpdatePlan
from adapters.archive import GitArchive
from adapters.worker_config import WorkerConfig
from constitution.checksum import checksum_of
from constitution.environment import Deadlines, Environment, Strategy, Target
from constitution.policy.document import parse
from constitution.release import Kind
from signatures.trust_holder import TrustHolder
from tests.world.author import Author
from tests.world.files import CHECKOUT, ENVIRONMENT, EnvironmentFiles
from workflows.status import UPDATE_ID

T = TypeVar("T")
X = TypeVar("X")


@workflow.defn(name="WaitsToBeTold")
class WaitsToBeTold:
    """A run that is open until it is told to end."""

    def __init__(self) -> None:
        self._told = False

    @workflow.run
    async def run(self) -> str:
        await workflow.wait_condition(lambda: self._told)
        return "told"

    @workflow.signal
    def tell(self) -> None:
        self._told = True


@dataclass
class Records:
    """The activities under test, and the repository that they write."""

    archive: ArchiveRelease
    runs: RunsActivities
    repository: GitArchive
    path: Path
    config: ActivityConfig


async def run(activity: Callable[[X], Awaitable[T]], x: X, environment: ActivityEnvironment | None = None) -> T:
    """Run an activity as a worker would, in an environment of its own: heartbeats go nowhere, and nobody cancels."""
    return await (environment or ActivityEnvironment()).run(activity, x)


async def refused(activity: Callable[[X], Awaitable[Any]], x: X) -> ApplicationError:
    """Run an activity that must fail, and return its failure."""
    try:
        answer = await run(activity, x)
    except ApplicationError as error:
        return error
    raise AssertionError(f"it did not fail, but answered {answer!r}")


def make_config(
    files: EnvironmentFiles,
    scratch: Path,
    *,
    targets: tuple[Target, ...] = (),
    gate: Path | None = None,
    channel: str = "#release",
) -> WorkerConfig:
    """The configuration of a worker in a test's environment, with targets of one's own."""
    environment = Environment.parse(files.environment_file.read_text())
    (files.directory / environment.inbox).mkdir(exist_ok=True)
    return WorkerConfig(
        environment=environment.model_copy(
            update={"targets": targets, "channel": channel, "gate": str(gate or CHECKOUT / "tests")}
        ),
        holder=TrustHolder(files.trust),
        directory=files.directory,
        scratch_directory=scratch,
        links={"Temporal UI": "http://127.0.0.1:1/"},
    )


def assessor_of(author: Author, config: WorkerConfig) -> Attester:
    """The assessor's hand: its own keys, and the real service."""
    return Attester(service=author.assessor, config=config, key=author.files.key("assessor"))


def update_plan_of(document: bytes, change_request: str, /, **changes: Any) -> UpdatePlan:
    """The update that `resolve_update` makes of a document, without asking."""
    said = parse(document)
    return UpdatePlan(
        update_id=str(uuid4()),
        workflow_id="test",
        run_id="run",
        environment=ENVIRONMENT,
        kind=Kind.UPDATE,
        checksum=checksum_of(document),
        version=said.version,
        title=said.title,
        summary=said.summary,
        previous=said.previous,
        effective_at=said.effective_at,
        expires_at=said.expires_at,
        change_request=change_request,
        author="mara",
        reason="the test asks",
        rings=("default",),
        expected_generation=0,
        approvals_needed=2,
        strategy_name="default",
        strategy=Strategy(),
        not_before=None,
        deadlines=Deadlines(),
        channel="#release",
        links={},
    ).model_copy(update=changes)


def now() -> datetime:
    """The time, aware."""
    return datetime.now(UTC)


SOON = timedelta(seconds=15)


async def closed_run(client: Client, task_queue: str, update_id: str) -> RunRef:
    """A run of an update that has closed, with a history of its own."""
    carries = TypedSearchAttributes([SearchAttributePair(UPDATE_ID, update_id)])
    async with Worker(
        client, task_queue=task_queue, workflows=[WaitsToBeTold], workflow_runner=UnsandboxedWorkflowRunner()
    ):
        handle = await client.start_workflow(
            WaitsToBeTold.run, id=f"{task_queue}/{uuid4()}", task_queue=task_queue, search_attributes=carries
        )
        await handle.signal(WaitsToBeTold.tell)
        await handle.result()
    return RunRef(workflow_id=handle.id, run_id=handle.first_execution_run_id)
