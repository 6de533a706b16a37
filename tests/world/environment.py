"""Brings up an environment on real servers: all of our own processes, or constitution-service alone.

Everything that a run touches is the environment's own: database, namespace (topics, groups, keys, task queue, workflow
ids), artifact store, archive repository, keys, environment.toml and Slack channel. Requests to constitution-service and
to Slack pass through wires, where a test stops one of them or cuts them all.
"""

import asyncio
import json
import secrets
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from slack_sdk import WebClient
from temporalio.api.enums.v1 import EventType, WorkflowTaskFailedCause
from temporalio.client import (
    Client,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowHistory,
)
from temporalio.common import TypedSearchAttributes
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError

from constitution.environment import Environment
from constitution.messages import Phase, Status
from constitution.names import Names
from constitution.release import CurrentConstitution
from constitution_client import ceremony
from deploy.embedded.services import SERVICES, TARGETS
from deploy.embedded.temporal import temporal_cli
from tests.helpers import eventually
from tests.machine import pace, patience
from tests.world import database
from tests.world.author import BOARD, Author, Proposal
from tests.world.files import ENVIRONMENT, EnvironmentFiles
from tests.world.gate import make_gate
from tests.world.processes import Service, kept_variables, run_constitution, run_program
from tests.world.readings import Readings
from tests.world.stack import ForkedStack
from tests.world.wire import Wire

SOON = timedelta(seconds=60)  # nothing here waits that long on an idle machine; ours has two cores and many users
LEAF = "orchestrator-2"  # a target on which no other one leans
SERVERS = ("TEMPORAL_", "DATABASE_", "REDIS_", "KAFKA_", "PROMETHEUS_URL", "SLACK_", "ARTIFACT_STORE_", "AWS_")
ADMIN = ("DATABASE_ADMIN_URL", "SLACK_ADMIN_TOKEN")  # settings for those who make environments, not for what runs there

# Chen may write change requests, too: so that the board has an author among it.
PEOPLE = (*ceremony.PEOPLE[:3], replace(ceremony.PEOPLE[3], roles=("board", "author")), *ceremony.PEOPLE[4:])


# --- constitution-service alone


def service_settings(
    files: EnvironmentFiles, directory: Path, servers: Mapping[str, str], namespace: str
) -> dict[str, str]:
    """What constitution-service is started with."""
    return {
        "NAMESPACE": namespace,
        "ENVIRONMENT_FILE": str(files.environment_file),
        "STATEMENT_KEY_FILE": str(files.key_file("constitution-service")),
        "ARTIFACT_STORE_URL": (directory / "store").as_uri(),
        "SPOOL_DIRECTORY": str(directory / "spool"),
        **{n: v for n, v in servers.items() if n.startswith("KAFKA_") or n in {"DATABASE_URL", "REDIS_URL"}},
    }


@dataclass(frozen=True)
class ServiceEnvironment:
    """A running constitution-service, and who acts on it."""

    files: EnvironmentFiles
    settings: Mapping[str, str]
    service: Service
    author: Author

    @property
    def names(self) -> Names:
        return Names(self.settings["NAMESPACE"])

    def consumer_settings(self, target: str, **more: str) -> dict[str, str]:
        """What a consumer of its releases is started with."""
        shared = {n: v for n, v in self.settings.items() if n in {"NAMESPACE", "ENVIRONMENT_FILE"} or "KAFKA_" in n}
        return {**shared, "TARGET_ID": target, "CONSTITUTION_SERVICE_URL": self.service.url, **more}


@asynccontextmanager
async def serving(
    files: EnvironmentFiles, settings: Mapping[str, str], log: Path, accepted: Sequence[int] = (HTTPStatus.OK,)
) -> AsyncIterator[ServiceEnvironment]:
    """Run constitution-service until the block ends; SIGTERM must end it with exit code 0, unless it was killed."""
    service = Service("constitution_service", settings, log).start()
    author = Author(files, service.url)
    try:
        await service.ready(accepted)
        yield ServiceEnvironment(files, settings, service, author)
    finally:
        await author.aclose()
        code = await asyncio.to_thread(service.stop)  # its way to a server may be a pipe in this event loop
    assert service.killed or code == 0, service.output()[-4000:]


# --- everything


@dataclass(frozen=True)
class End:
    """How a run ended: Temporal's word, the failure's type (None: completed), its message or result."""

    status: str
    type: str | None
    message: str
    result: Any = None


class RunningEnvironment:
    """All of our own processes in one environment: services, targets, SIEM forwarder and worker.

    Args:
        directory: where everything is kept.
        servers: settings of the test run's servers, with the environment's own database and Slack channel.
        channel: the name of that channel, without `#`.
        names: its names in shared systems.
        client: connected to Temporal.
        settings: more settings of our processes.
    """

    def __init__(
        self,
        directory: Path,
        servers: Mapping[str, str],
        *,
        channel: str,
        names: Names,
        client: Client,
        settings: Mapping[str, str],
    ) -> None:
        self.directory = directory
        self.names = names
        self.client = client
        self.channel = channel
        self.direct = dict(servers)
        self.gate = directory / "gate"
        self.slack_wire = Wire(servers["SLACK_API_URL"])
        self.service_wire = Wire(self._service_address)
        given, own = self._reached()
        self.stack = ForkedStack(
            directory,
            [server.name for server in SERVICES],
            environment=given,
            overrides={"NAMESPACE": names.namespace, **own, **settings},
        )
        self._steering = "refuse"
        self._deadlines = {"sync": round(10 * pace()), "person": 600, "gate": 120}
        self._stopped: set[str] = set()
        self._looked_at: set[str] = set()

    def _reached(self) -> tuple[dict[str, str], dict[str, str]]:
        """How our processes reach the servers, and one another."""
        slack = self.slack_wire.url + urlsplit(self.direct["SLACK_API_URL"]).path
        # A run must come right by itself: reconciliation has tests of its own.
        own = {"CONSTITUTION_SERVICE_URL": self.service_wire.url, "RECONCILE_SECONDS": "0"}
        return self.direct | {"SLACK_API_URL": slack}, own

    # --- coming and going

    async def start(self) -> None:
        """Start all processes; returns when each answers."""
        make_gate(self.gate)
        home = self.directory / ENVIRONMENT
        home.mkdir(parents=True, mode=0o700, exist_ok=True)
        self.files = EnvironmentFiles.make(home, people=PEOPLE)
        self._write_environment({name: f"http://{name}.invalid" for name in TARGETS})
        await asyncio.to_thread(self.stack.start)
        host, port = self._service_address()
        self.author = Author(self.files, f"http://{host}:{port}")
        self.service = self.author.operator
        self.reads = Readings(self.settings | self.direct, self.names)

    @property
    def config(self) -> Environment:
        """What environment.toml says."""
        return Environment.parse(self.files.environment_file.read_text())

    async def stop(self, *, keep_logs: bool = False) -> None:
        """Stop all of it, and leave nothing behind but Temporal's runs, and the logs where they are wanted."""
        for name in list(self._stopped):
            await self.go_on(name)
        self.service_wire.close()
        self.slack_wire.close()
        if hasattr(self, "author"):
            await self.author.aclose()
        await asyncio.to_thread(self.stack.stop if keep_logs else self.stack.erase)

    @property
    def settings(self) -> dict[str, str]:
        return self.stack.settings()

    def port(self, name: str) -> int:
        """Where one of its processes listens."""
        ports: dict[str, int] = json.loads((self.directory / "run" / "state.json").read_text())["ports"]
        return ports[name]

    def _service_address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port("constitution-service")

    def _write_environment(self, urls: Mapping[str, str] | None = None) -> None:
        urls = urls or {target.id: target.url for target in self.config.targets}
        lines = [
            "schema_version = 1",
            f'environment = "{ENVIRONMENT}"',
            'tenants = ["global", "acme"]',
            f"gate = {json.dumps(str(self.gate))}",
            f'channel = "#{self.channel}"',
            f'unsigned_steering = "{self._steering}"',
            "[strategies.default]",
            "watch_seconds = 0",
            "[strategies.watched]",
            "watch_seconds = 30",
            "baseline_seconds = 30",
            "scrape_seconds = 1.0",
            "[strategies.unseen]",  # nothing is scraped here: it goes on as far as it may, and says so
            "watch_seconds = 20",
            "baseline_seconds = 30",
            "scrape_seconds = 1.0",
            'on_no_data = "continue"',
            'on_cannot_tell = "continue"',
            "[deadlines]",
            *(f"{name} = {value}" for name, value in self._deadlines.items()),
        ]
        for name, kind in TARGETS.items():
            lines += ["[[targets]]", f'id = "{name}"', f'kind = "{kind}"', f'url = "{urls[name]}"']
        self.files.environment_file.write_text("\n".join(lines) + "\n")

    @asynccontextmanager
    async def configured(
        self, *, gate: Path | None = None, steering: str | None = None, **deadlines: int
    ) -> AsyncIterator[None]:
        """Let worker, assessor and, for another way of steering, the service run with another environment.toml."""
        before = self._deadlines, self.gate, self._steering
        asked = ("worker", "assessor") if steering is None else ("constitution-service", "worker", "assessor")
        self._steering = steering or self._steering
        self._deadlines, self.gate = self._deadlines | deadlines, gate or self.gate
        await self._configure_anew(asked)
        try:
            yield
        finally:
            self._deadlines, self.gate, self._steering = before
            await self._configure_anew(asked)

    async def _configure_anew(self, names: Sequence[str]) -> None:
        self._write_environment()
        for name in names:
            await self.restart(name)

    async def kill(self, name: str) -> None:
        """SIGKILL, and wait until it is gone."""
        await asyncio.to_thread(self.stack.kill, name, signal.SIGKILL)

        async def dead() -> bool:
            states = {status.name: status.state for status in await asyncio.to_thread(self.stack.status)}
            return states[name] == "dead"

        await eventually(dead, SOON)

    async def restart(self, name: str) -> None:
        await asyncio.to_thread(self.stack.restart, name)

    async def pause(self, name: str) -> None:
        """SIGSTOP: it holds its connections, and says nothing."""
        await asyncio.to_thread(self.stack.kill, name, signal.SIGSTOP)
        self._stopped.add(name)

    async def go_on(self, name: str) -> None:
        await asyncio.to_thread(self.stack.kill, name, signal.SIGCONT)
        self._stopped.discard(name)

    @asynccontextmanager
    async def paused(self, name: str) -> AsyncIterator[None]:
        """Let a process stand still until the block ends, or until `go_on`."""
        await self.pause(name)
        try:
            yield
        finally:
            if name in self._stopped:
                await self.go_on(name)

    # --- runs

    def update_id(self, change_request: str) -> str:
        return self.names.update_id(ENVIRONMENT, change_request)

    def rollback_id(self, bad_generation: int) -> str:
        return self.names.rollback_id(ENVIRONMENT, bad_generation)

    async def start_run(
        self, workflow: str, workflow_id: str, *arguments: Any, attributes: TypedSearchAttributes | None = None
    ) -> WorkflowHandle[Any, Any]:
        """Start a run with any arguments and search attributes, also wrong ones."""
        return await self.client.start_workflow(
            workflow,
            args=arguments,
            id=workflow_id,
            task_queue=self.names.task_queue(),
            search_attributes=attributes,
        )

    async def update(self, proposal: Proposal, **more: Any) -> WorkflowHandle[Any, Any]:
        """Start the update of a proposal."""
        workflow_id = self.update_id(proposal.change_request)
        return await self.start_run("ConstitutionUpdate", workflow_id, proposal.input | more)

    async def start_rollback(self, bad: int, reason: str = "found bad", **more: Any) -> WorkflowHandle[Any, Any]:
        """Start the rollback of a generation by hand, ordered by an operator."""
        workflow_id, update_id = self.rollback_id(bad), str(uuid4())
        stand_in = Status(workflow="ConstitutionRollback", phase=Phase.RUNNING, update_id=update_id, undoes=bad)
        envelope = self.author.order("rollback", workflow_id, stand_in, reason=reason)
        request = {
            "reason": reason,
            "bad_generation": bad,
            "update_id": update_id,
            "order": envelope.model_dump(mode="json"),
            **more,
        }
        return await self.start_run("ConstitutionRollback", workflow_id, request)

    async def steer(
        self, handle: WorkflowHandle[Any, Any], verb: str, reason: str = "the test asks", **more: Any
    ) -> str:
        """Have an operator order a run to do something; what it answers."""
        envelope = self.author.order(verb, handle.id, await self.status(handle), reason=reason)
        answer: str = await handle.execute_update(verb, {"order": envelope.model_dump(mode="json")}, **more)
        return answer

    async def status(self, handle: WorkflowHandle[Any, Any]) -> Status:
        """Ask a run; while its worker is away there is no answer yet."""

        async def ask() -> Status | None:
            try:
                answer: Status = await handle.query("status", result_type=Status, rpc_timeout=timedelta(seconds=10))
            except RPCError:
                return None
            return answer

        found = await eventually(ask, SOON)
        assert found is not None
        return found

    async def until(
        self, handle: WorkflowHandle[Any, Any], condition: Callable[[Status], bool], deadline: timedelta = SOON
    ) -> Status:
        """Follow a run until its status meets a condition."""
        last: list[Status] = []

        async def met() -> bool:
            last[:] = [await self.status(handle)]
            assert condition(last[0]), f"{last[0].phase}, step {last[0].step}: {last[0].waiting_for}"
            return True

        await eventually(met, deadline)
        return last[0]

    async def until_step(
        self, handle: WorkflowHandle[Any, Any], step: str, state: str = "running", deadline: timedelta = SOON
    ) -> Status:
        """Follow a run until a step is in a state."""
        return await self.until(handle, lambda status: state_of(status, step) == state, deadline)

    async def approve(self, handle: WorkflowHandle[Any, Any], proposal: Proposal, deadline: timedelta = SOON) -> Status:
        """Wait until the board is asked, and have two of its members approve."""
        status = await self.until_step(handle, "board", "waiting", deadline)
        for person in BOARD:
            envelope = self.author.approval(person, proposal, status)
            await handle.execute_update("decide", {"approval": envelope.model_dump(mode="json")})
        return status

    async def approved(
        self, proposal: Proposal | None = None, **more: Any
    ) -> tuple[WorkflowHandle[Any, Any], Proposal]:
        """Start an update, and have it approved."""
        proposal = proposal or await self.author.propose()
        handle = await self.update(proposal, **more)
        await self.approve(handle, proposal)
        return handle, proposal

    async def completed(self) -> Proposal:
        """Put something live, and confirm it."""
        handle, proposal = await self.approved()
        end = await self.end(handle)
        assert end.type is None, end.message
        return proposal

    async def live(self) -> CurrentConstitution:
        """What is live; where nothing is, something is put live first."""
        if await self.author.current() is None:
            await self.completed()
        live = await self.author.current()
        assert live is not None
        return live

    async def end(self, handle: WorkflowHandle[Any, Any], deadline: timedelta = timedelta(seconds=90)) -> End:
        """Wait for the end of one run; no workflow task of it may have failed."""
        end = await self._end(handle, deadline)
        assert stalls(await handle.fetch_history()) == []
        return end

    async def _end(self, handle: WorkflowHandle[Any, Any], deadline: timedelta) -> End:
        try:
            result = await asyncio.wait_for(handle.result(follow_runs=False), patience(deadline).total_seconds())
        except WorkflowFailureError as error:
            description = await handle.describe()
            status = description.status.name if description.status else ""
            if isinstance(error.cause, ApplicationError):
                return End(status, error.cause.type, error.cause.message)
            return End(status, type(error.cause).__name__, str(error.cause))
        except TimeoutError:
            opened = [f"{run}: {await self.status(self.run(run))}" for run in await self.open_runs()]
            raise AssertionError(f"{handle.id} is still open; {opened}") from None
        return End("COMPLETED", None, "", result)

    async def story(self) -> str:
        """Where the newest runs stand, and the last lines of the worker's log: what one asks first after a failure."""
        lines: list[str] = []
        query = f"TaskQueue = '{self.names.task_queue()}' AND WorkflowType != 'ConstitutionReconcile'"
        async for run in self.client.list_workflows(query, limit=8):
            with suppress(Exception):  # it tells what it can: the test has failed already
                asked = self.client.get_workflow_handle(run.id, run_id=run.run_id)
                status = await asked.query("status", rpc_timeout=timedelta(seconds=5))
                lines.append(f"{run.id} {run.status.name if run.status else ''}: {json.dumps(status)}")
        log = self.directory / "log" / "worker.log"
        said = log.read_text(errors="replace").splitlines()[-30:] if log.exists() else []
        return "\n".join(["runs:", *lines, f"{log}:", *said])

    async def open_runs(self) -> list[str]:
        """The ids of this environment's runs that have not closed."""
        query = f"TaskQueue = '{self.names.task_queue()}' AND ExecutionStatus = 'Running'"
        return [run.id async for run in self.client.list_workflows(query)]

    async def runs_of(self, workflow_id: str) -> list[tuple[str, WorkflowExecutionStatus | None]]:
        """(run id, status) of every run under one workflow id, newest first."""
        query = f"WorkflowId = '{workflow_id}'"
        return [(run.run_id, run.status) async for run in self.client.list_workflows(query)]

    async def guard_of(self, handle: WorkflowHandle[Any, Any]) -> WorkflowHandle[Any, Any]:
        """The guard of a run."""
        run_id = handle.run_id or handle.first_execution_run_id or (await handle.describe()).run_id
        return self.client.get_workflow_handle(self.names.guard_id(handle.id, run_id))

    def run(self, workflow_id: str) -> WorkflowHandle[Any, Any]:
        return self.client.get_workflow_handle(workflow_id)

    # --- programs

    async def temporal(self, *arguments: str) -> tuple[int, str, str]:
        """Run Temporal's own command line; (exit code, stdout, stderr)."""
        named = {name: value for name, value in self.direct.items() if name.startswith("TEMPORAL_")}
        return await run_program(named, temporal_cli(), *arguments)

    async def constitution(self, *arguments: str) -> tuple[int, str, str]:
        """Run our command line as a person does who has read stack.env; (exit code, stdout, stderr)."""
        named = {"CONSTITUTION_ENV_FILE": str(self.directory / "stack.env")}
        return await asyncio.to_thread(run_constitution, {**kept_variables(), **named}, *arguments)

    # --- rest

    async def rest(self) -> None:
        """Wait until every run has closed, and demand what must hold then (docs/architecture.md, Invariants).

        1 the same release everywhere; 2 one event id per generation and tenant, none lost; 3 no generation skipped;
        6 nobody holds the lease; 7 each outcome told once; and no workflow task of any run has failed.
        """

        async def closed() -> bool:
            opened = await self.open_runs()
            assert opened == [], opened
            return await self.service.lease() is None  # a guard that is started meanwhile has it for a moment

        await eventually(closed, timedelta(seconds=90))
        await eventually(self.agreed, SOON)
        told = await asyncio.to_thread(self.reads.told)
        assert [key for key, messages in told.items() if len(messages) != 1] == []
        events = await asyncio.to_thread(self.reads.events)
        releases = await self.service.releases()
        generations = sorted(release.generation for release in releases)
        assert generations == list(range(1, len(generations) + 1))
        tenants = self.config.tenants
        expected = {(release.generation, tenant): {f"{release.event_id}:{tenant}"} for release in releases
                    for tenant in tenants}  # fmt: skip
        assert events == expected
        query = f"TaskQueue = '{self.names.task_queue()}'"
        async for run in self.client.list_workflows(query):
            if run.run_id in self._looked_at:
                continue
            history = await self.client.get_workflow_handle(run.id, run_id=run.run_id).fetch_history()
            assert stalls(history) == [], run.id
            if run.status is not WorkflowExecutionStatus.RUNNING:  # then its history grows no more
                self._looked_at.add(run.run_id)

    def excuse(self, run_id: str) -> None:
        """Ask no more whether a workflow task of this run has failed: the test itself has failed one."""
        self._looked_at.add(run_id)

    async def agreed(self) -> bool:
        """Whether Postgres, Redis and every target name one and the same release."""
        said = await self.reads.live(self.config)
        assert len(set(said.values())) == 1, said
        return True


def state_of(status: Status, step: str) -> str:
    return next(entry.state for entry in status.steps if entry.name == step)


def needs_a_person(status: Status) -> bool:
    return status.phase is Phase.NEEDS_A_PERSON


def stalls(history: WorkflowHistory) -> list[str]:
    """Failed workflow tasks. A message, terminate or reset that comes in the middle of one is no failure of ours."""
    return [
        event.workflow_task_failed_event_attributes.failure.message
        for event in history.events
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED
        and event.workflow_task_failed_event_attributes.cause
        not in {
            WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_UNHANDLED_COMMAND,
            WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_FORCE_CLOSE_COMMAND,
            WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_RESET_WORKFLOW,  # how the server writes a reset down
        }
    ]


class Environments:
    """Makes environments on one set of servers; one at a time.

    Args:
        servers: settings of the servers.
        client: connected to Temporal.
        prefix: of the path of each one's folder.
        template: the database that each one's is cloned from; without one, the stack migrates it.
        settings: of their own processes, on top of what they need.
        namespace: NAMESPACE; without it each has another one.
    """

    def __init__(
        self,
        servers: Mapping[str, str],
        client: Client,
        prefix: Path,
        *,
        template: str | None = None,
        settings: Mapping[str, str] | None = None,
        namespace: str | None = None,
    ) -> None:
        self.servers = {name: value for name, value in servers.items() if name.startswith(SERVERS)}
        self.client = client
        self._prefix = prefix
        self._template = template
        self._settings = dict(settings or {})
        self._namespace = namespace
        self._running: RunningEnvironment | None = None
        self._database = ""

    def with_settings(self, **settings: str) -> "Environments":
        """Environments on the same servers, whose processes have other settings."""
        return Environments(self.servers, self.client, self._prefix, template=self._template, settings=settings)

    async def running(self) -> RunningEnvironment:
        """The one that runs, or a new one, where nothing has ever been live."""
        if self._running is None:
            names = Names(self._namespace or f"t{secrets.token_hex(4)}")
            self._database = f"test_{secrets.token_hex(6)}"
            addresses = await database.create(self.servers, self._database, self._template)
            servers = {name: value for name, value in self.servers.items() if name not in ADMIN} | addresses
            channel = f"release-{names.namespace}"
            slack = WebClient(self.servers["SLACK_ADMIN_TOKEN"], base_url=servers["SLACK_API_URL"])
            slack.conversations_create(name=channel)
            folder = self._prefix.with_name(f"{self._prefix.name}-{secrets.token_hex(3)}")
            self._running = made = self._make(folder, servers, channel=channel, names=names)
            try:
                await self._start(made)
            except BaseException:
                await self.leave()
                raise
        return self._running

    def _make(self, folder: Path, servers: Mapping[str, str], *, channel: str, names: Names) -> RunningEnvironment:
        return RunningEnvironment(
            folder, servers, channel=channel, names=names, client=self.client, settings=self._settings
        )

    async def _start(self, made: RunningEnvironment) -> None:
        await made.start()

    async def leave(self, *, keep_logs: bool = False) -> None:
        """Stop the one that runs; who asks next gets a new one."""
        if self._running is None:
            return
        left, self._running = self._running, None
        await left.stop(keep_logs=keep_logs)
        await database.drop(self.servers, self._database)
