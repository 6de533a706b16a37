"""A whole deployment of our own processes on the test run's servers: services, targets, SIEM forwarder and worker.

Everything that a run touches is the town's own: database, namespace (topics, groups, keys, task queue, workflow ids),
artifact store, archive repository, keys, environment.toml and Slack channel. Requests to constitution-service and to
Slack pass through wires, where a test stops one of them or cuts them all.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

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

from constitution.api import ChangeRequest
from constitution.environment import Environment
from constitution.messages import Phase, Status
from constitution.names import Names
from constitution.policy.draft import fill
from constitution.release import CurrentConstitution, Envelope, Kind, Previous
from constitution.trust.approval import ApprovalPredicate, BoardDecision
from constitution_client import ceremony
from constitution_client.ceremony import make_trust
from constitution_client.service import ConstitutionServiceClient
from deploy.embedded.development import ENVIRONMENT
from deploy.embedded.services import SERVICES, TARGETS
from deploy.embedded.stack import Stack
from deploy.embedded.stack_directory import CHECKOUT
from deploy.embedded.temporal import temporal_cli
from signatures.openpgp import sign_detached
from signatures.statements import sign_approval, sign_change_request
from signatures.tokens import ClientKey
from tests.helpers import eventually
from tests.machine import pace, patience
from tests.workflow.readings import Readings
from tests.workflow.wire import Wire

SOON = timedelta(seconds=60)  # nothing here waits that long on an idle machine; ours has two cores and many users
LEAF = "orchestrator-2"  # a target on which no other one leans

# Chen may write change requests, too: so that the board has an author among it.
PEOPLE = (*ceremony.PEOPLE[:3], replace(ceremony.PEOPLE[3], roles=("board", "author")))

GATE_CASE = '''
"""The smallest gate that is one: it reads the draft, and says so."""

import hashlib
import json
import os
import pathlib

import pytest

DRAFT = pathlib.Path(os.environ["CONSTITUTION_DRAFT"]).read_bytes()


@pytest.fixture(scope="session", autouse=True)
def served(record_testsuite_property):
    record_testsuite_property("served", "sha256:" + hashlib.sha256(DRAFT).hexdigest())


def test_the_draft_has_rules_and_says_no_by_default():
    draft = json.loads(DRAFT)
    assert draft["rules"]
    assert draft["default_effect"] == "deny"
'''
GOLDEN = """
[[case]]
name = "nothing at all"
request = {}

[[case]]
name = "a payment"
request = { tool = "payments.transfer", action = "pay" }
"""


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A signed draft that was pushed, and the change request that asks for it."""

    document: bytes
    checksum: str
    version: str
    previous: Previous | None
    change_request: str

    @property
    def input(self) -> dict[str, Any]:
        return {"checksum": self.checksum, "change_request": self.change_request}


@dataclass(frozen=True)
class End:
    """How a run ended: Temporal's word, the failure's type (None: completed), its message or result."""

    status: str
    type: str | None
    message: str
    result: Any = None


class Town:
    """One deployment.

    Args:
        directory: where everything is kept.
        servers: settings of the test run's servers, with the town's own database and Slack channel.
        channel: the name of that channel, without `#`.
        namespace: NAMESPACE.
        client: connected to Temporal.
        settings: more settings of our processes.
    """

    def __init__(
        self,
        directory: Path,
        servers: Mapping[str, str],
        *,
        channel: str,
        namespace: str,
        client: Client,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.home = directory / ENVIRONMENT
        self.names = Names(namespace)
        self.client = client
        self.channel = channel
        self._servers = dict(servers)
        slack = urlsplit(servers["SLACK_API_URL"])
        self.slack_wire = Wire(lambda: (slack.hostname or "", slack.port or 80))
        self.service_wire = Wire(self._service_address)
        given = self._servers | {"SLACK_API_URL": self.slack_wire.url + slack.path}
        self.stack = Stack(
            directory,
            [server.name for server in SERVICES],
            environment=given,
            overrides={
                "NAMESPACE": namespace,
                "CONSTITUTION_SERVICE_URL": self.service_wire.url,
                "RECONCILE_SECONDS": "0",  # a run must come right by itself; reconciliation has tests of its own
                **(settings or {}),
            },
        )
        self._deadlines = {"sync": round(10 * pace()), "person": 600, "gate": 120}
        self._made = 0
        self._stopped: set[str] = set()
        self._looked_at: set[str] = set()
        self.gate = directory / "gate"

    # --- coming and going

    async def start(self) -> None:
        """Start all processes; returns when each answers."""
        make_gate(self.gate)
        self.home.mkdir(parents=True, mode=0o700, exist_ok=True)
        make_trust(self.home, ENVIRONMENT, people=PEOPLE)
        self._write_environment()
        await asyncio.to_thread(self.stack.start)
        self.environment = Environment.parse((self.home / "environment.toml").read_text())
        key = ClientKey.load(self.home / "keys" / "operator.jwk")
        host, port = self._service_address()
        self.service = ConstitutionServiceClient(f"http://{host}:{port}", key, ENVIRONMENT)
        self.reads = Readings(self.settings | {"SLACK_API_URL": self._servers["SLACK_API_URL"]}, self.names)

    async def stop(self, *, keep_logs: bool = False) -> None:
        """Stop all of it, and leave nothing behind but Temporal's runs, and the logs where they are wanted."""
        for name in list(self._stopped):
            await self.go_on(name)
        self.service_wire.close()
        self.slack_wire.close()
        if hasattr(self, "service"):
            await self.service.aclose()
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

    def _write_environment(self) -> None:
        file = self.home / "environment.toml"
        urls = {name: f"http://{name}.invalid" for name in TARGETS}
        if file.exists():
            urls = {target.id: target.url for target in Environment.parse(file.read_text()).targets}
        lines = [
            "schema_version = 1",
            f'environment = "{ENVIRONMENT}"',
            'tenants = ["global", "acme"]',
            f"gate = {json.dumps(str(self.gate))}",
            f'channel = "#{self.channel}"',
            "[strategies.default]",
            "watch_seconds = 0",
            "[strategies.watched]",
            "watch_seconds = 30",
            "baseline_seconds = 30",
            "scrape_seconds = 1.0",
            "[strategies.unseen]",  # nothing is scraped in a town: it goes on as far as it may, and says so
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
        file.write_text("\n".join(lines) + "\n")

    @asynccontextmanager
    async def configured(self, *, gate: Path | None = None, **deadlines: int) -> AsyncIterator[None]:
        """Let worker and assessor run with another environment.toml until the block ends."""
        before = self._deadlines, self.gate
        self._deadlines, self.gate = self._deadlines | deadlines, gate or self.gate
        await self._configure_anew()
        try:
            yield
        finally:
            self._deadlines, self.gate = before
            await self._configure_anew()

    async def _configure_anew(self) -> None:
        self._write_environment()
        await self.restart("worker")
        await self.restart("assessor")

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

    # --- people

    def tsk(self, person: str) -> bytes:
        return (self.home / "keys" / f"{person}.tsk").read_bytes()

    async def current(self) -> CurrentConstitution | None:
        """What is live, as constitution-service says; None where nothing is."""
        live = await self.service.current()
        return live if live is not None and live.checksum is not None else None

    async def draft(self, template: str | bytes = "tool-use", /, **changes: Any) -> bytes:
        """A draft that may follow what is live."""
        live = await self.current()
        releases = await self.service.releases()
        highest = max((int((r.version or "0.0.0").split(".")[1]) for r in releases), default=0)
        self._made = max(self._made, highest) + 1
        now = datetime.now(UTC)
        previous = None
        if live is not None and live.version is not None and live.checksum is not None:
            previous = Previous(version=live.version, checksum=live.checksum)
        return fill(
            template,
            **{
                "version": f"1.{self._made}.0",
                "environment": ENVIRONMENT,
                "issued_at": now,
                "expires_at": now + timedelta(days=90),
                "previous": previous,
                **changes,
            },
        )

    def sign(self, document: bytes, person: str = "mara") -> bytes:
        return sign_detached(document, self.tsk(person))

    async def file(self, checksum: str, identity: str | None = None, author: str = "mara") -> str:
        """File a change request, and return its id."""
        self._made += 1
        request = ChangeRequest(
            id=identity or f"CR-{self._made}", author=author, checksum=checksum, reason="the test asks"
        )
        await self.service.create_change_request(sign_change_request(request, self.tsk(author)))
        return request.id

    async def propose(self, document: bytes | None = None) -> Proposal:
        """Draft, sign, push, and ask."""
        document = document or await self.draft()
        artifact = await self.service.push(document, [self.sign(document)])
        return self.proposal(document, artifact.checksum, await self.file(artifact.checksum))

    def proposal(self, document: bytes, checksum: str, change_request: str) -> Proposal:
        said = json.loads(document)
        return Proposal(
            document=document,
            checksum=checksum,
            version=said["version"],
            previous=Previous.model_validate(said["previous"]) if said["previous"] else None,
            change_request=change_request,
        )

    def approval(self, person: str, proposal: Proposal, status: Status, /, **changes: Any) -> Envelope:
        """A signed decision about an update, whose run says this of itself."""
        now = datetime.now(UTC)
        predicate = {
            "kind": Kind.UPDATE,
            "environment": ENVIRONMENT,
            "checksum": proposal.checksum,
            "version": proposal.version,
            "previous": proposal.previous,
            "change_request": proposal.change_request,
            "evidence": status.evidence,
            "plan": status.plan,
            "decision": BoardDecision.APPROVE,
            "reason": "read and agreed",
            "issued_at": now,
            "expires_at": now + timedelta(days=1),
            **changes,
        }
        return sign_approval(ApprovalPredicate.model_validate(predicate), self.tsk(person))

    async def undoing(self, person: str, bad_generation: int, status: Status) -> Envelope:
        """A signed decision about the rollback that says this of itself."""
        bad = await self.service.release(bad_generation)
        undone = Previous(version=bad.version, checksum=bad.checksum) if bad.version and bad.checksum else None
        now = datetime.now(UTC)
        predicate = ApprovalPredicate(
            kind=Kind.ROLLBACK if status.checksum else Kind.WITHDRAW,
            environment=ENVIRONMENT,
            checksum=status.checksum,
            version=status.version,
            previous=undone,
            change_request=None,
            evidence=None,
            rollback_of=bad_generation,
            decision=BoardDecision.APPROVE,
            reason="read and agreed",
            issued_at=now,
            expires_at=now + timedelta(days=1),
        )
        return sign_approval(predicate, self.tsk(person))

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
        for person in ("alva", "bruno"):
            envelope = self.approval(person, proposal, status)
            await handle.execute_update("decide", {"approval": envelope.model_dump(mode="json")})
        return status

    async def approved(
        self, proposal: Proposal | None = None, **more: Any
    ) -> tuple[WorkflowHandle[Any, Any], Proposal]:
        """Start an update, and have it approved."""
        proposal = proposal or await self.propose()
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
        if await self.current() is None:
            await self.completed()
        live = await self.current()
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
        """The ids of this town's runs that have not closed."""
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
        named = {name: value for name, value in self._servers.items() if name.startswith("TEMPORAL_")}
        return await _program(named, temporal_cli(), *arguments)

    async def constitution(self, *arguments: str) -> tuple[int, str, str]:
        """Run our command line as a person does who has read stack.env; (exit code, stdout, stderr)."""
        named = {"CONSTITUTION_ENV_FILE": str(self.directory / "stack.env")}
        return await _program(named, sys.executable, "-m", "constitution_client", *arguments)

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
        expected = {(release.generation, tenant): {f"{release.event_id}:{tenant}"} for release in releases
                    for tenant in self.environment.tenants}  # fmt: skip
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
        said = await self.reads.live(self.environment)
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


def make_gate(folder: Path) -> None:
    """Write a gate of one real case a suite, and golden requests."""
    for suite in ("policy", "chaos"):
        (folder / suite).mkdir(parents=True, exist_ok=True)
        (folder / suite / "test_draft.py").write_text(GATE_CASE)
    (folder / "policy" / "cases").mkdir(exist_ok=True)
    (folder / "policy" / "cases" / "golden.toml").write_text(GOLDEN)


async def _program(named: Mapping[str, str], *command: str) -> tuple[int, str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**kept, **named},
        cwd=CHECKOUT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, out.decode(), err.decode()
