"""The client's way to Temporal: connect, start, ask, send; Temporal's errors become those of the domain.

The connection is found as Temporal's own command line finds it (``temporalio.envconfig``). Every call has a time
limit: a run without a worker answers nothing, and the command must say so instead of waiting.
"""

import asyncio
import re
import shlex
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import ValidationError
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import (
    Client,
    RPCTimeoutOrCancelledError,
    WorkflowExecutionDescription,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowQueryFailedError,
    WorkflowUpdateFailedError,
)
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.envconfig import ClientConfig
from temporalio.exceptions import ApplicationError, FailureError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from constitution.errors import (
    ConflictError,
    ConstitutionError,
    ContentError,
    ForbiddenError,
    InvalidRequestError,
    Issue,
    NotFoundError,
    NotYetError,
    UnavailableError,
)
from constitution.messages import Outcome, Status, undo_command
from constitution.model import Model
from constitution_client.settings import LOAD_STACK, UsageError

CONNECT_TIMEOUT = timedelta(seconds=5)
CALL_TIMEOUT = timedelta(seconds=10)  # start, describe, signal: answered by the server alone, in milliseconds
QUERY_TIMEOUT = timedelta(seconds=10)  # answered by a worker, which may first replay the run
MESSAGE_TIMEOUT = timedelta(seconds=60)  # a decision is verified by an activity before it is answered
POLLED_WITHIN = timedelta(seconds=90)  # a poll lasts 60 s; the server lists a worker for minutes after its end
_LONGEST_REASON = 200  # characters of a driver's own words
_REFUSED = re.compile(r"\b(Unauthenticated|PermissionDenied|401 Unauthorized|403 Forbidden)\b")  # a driver's only sign
_NO_WORKER = "make worker  # no worker answers on the task queue; then type the command again"


class RunExistsError(ConflictError):
    """A run with this id is open already."""

    code = "run-exists"


class MessageRefusedError(ContentError):
    """The run received the message and refused it."""

    code = "message-refused"


async def connect(variables: Mapping[str, str]) -> Client:
    """Connect to Temporal.

    Args:
        variables: what ``temporalio.envconfig`` reads: TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TEMPORAL_TLS…, and
            TEMPORAL_CONFIG_FILE with profiles.

    Raises:
        UsageError: the configuration cannot be read.
        ForbiddenError: it refuses who we are.
        UnavailableError: the server does not answer.
    """
    try:
        config = ClientConfig.load_client_connect_config(override_env_vars=dict(variables))
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"Temporal's configuration cannot be read: {error}", hint="temporal config list") from error
    configured = config.get("target_host")
    address = configured or "localhost:7233"
    config["target_host"] = address
    try:
        return await asyncio.wait_for(
            Client.connect(**config, connect_timeout=CONNECT_TIMEOUT), CONNECT_TIMEOUT.total_seconds() * 2
        )
    except (RuntimeError, RPCError, TimeoutError) as error:
        if _REFUSED.search(str(error)):
            raise ForbiddenError(
                f"Temporal at {address} refuses these credentials: {_reason(error)}",
                hint="check TEMPORAL_API_KEY, the certificate in TEMPORAL_TLS_CLIENT_CERT_PATH, or the profile",
            ) from error
        unset = not (configured or variables.get("TEMPORAL_ADDRESS"))
        raise UnavailableError(
            f"Temporal at {address} does not answer: {_reason(error)}"
            + ("; TEMPORAL_ADDRESS is not set, nor CONSTITUTION_ENV_FILE that could hold it" if unset else ""),
            hint=LOAD_STACK if unset else "make status  # shows whether it runs; TEMPORAL_ADDRESS says where it should",
        ) from error


def _reason(error: Exception) -> str:
    """Return in words why a connection failed; the driver nests several errors into one text."""
    if isinstance(error, TimeoutError):
        return "no answer within the time limit"
    innermost = re.findall(r'message: "([^"]+)"', str(error))
    return innermost[-1] if innermost else str(error)[:_LONGEST_REASON]


def troubles(description: WorkflowExecutionDescription) -> tuple[str, ...]:
    """Return, for each step that the server tries again by itself, its last error and the time of its next attempt.

    The run cannot say it: it learns of failed attempts only when all have been spent, up to minutes later.
    """
    lines = []
    for pending in description.raw_description.pending_activities:
        if pending.attempt > 1 and pending.HasField("last_failure"):
            failure = pending.last_failure
            while not failure.message and failure.HasField("cause"):
                failure = failure.cause
            why = (failure.message or "no answer in time").splitlines()[0]
            again = ""
            due = pending.scheduled_time.ToDatetime(UTC) if pending.HasField("scheduled_time") else None
            if due is not None and due > datetime.now(UTC):
                again = f"; next at {due:%H:%M:%S}Z"
            lines.append(f"{pending.activity_type.name}, attempt {pending.attempt - 1} failed: {why}{again}")
    return tuple(lines)


class Runs:
    """The runs of one environment, by workflow id.

    Args:
        client: a connected client.
        task_queue: where the workers listen.
    """

    def __init__(self, client: Client, task_queue: str) -> None:
        self._client = client
        self._task_queue = task_queue

    async def start(
        self,
        workflow: str,
        request: Model,
        workflow_id: str,
        *,
        timeout: timedelta | None = None,  # noqa: ASYNC109
    ) -> str:
        """Start a run and return its run id.

        Args:
            workflow: its type.
            request: its input.
            workflow_id: its id.
            timeout: the server ends the run then; None: it may last as long as it does.

        Raises:
            RunExistsError: one with this id is open.
            UnavailableError: the server does not answer.
        """
        payload = request.model_dump(mode="json", exclude_none=True)
        async with _translated(workflow_id):
            try:
                handle = await self._client.start_workflow(
                    workflow,
                    payload,
                    id=workflow_id,
                    task_queue=self._task_queue,
                    id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                    execution_timeout=timeout,
                    rpc_timeout=CALL_TIMEOUT,
                )
            except WorkflowAlreadyStartedError as error:
                raise RunExistsError(
                    f"{workflow_id} is running already", hint=f"constitution watch {shlex.quote(workflow_id)}"
                ) from error
        return handle.first_execution_run_id or ""

    async def describe(self, workflow_id: str, run_id: str | None = None) -> WorkflowExecutionDescription:
        """Return the server's description of a run, with or without a worker.

        Raises:
            NotFoundError: there is no such run.
        """
        async with _translated(workflow_id):
            return await self._handle(workflow_id, run_id).describe(rpc_timeout=CALL_TIMEOUT)

    async def status(self, workflow_id: str, run_id: str | None = None) -> Status:
        """Ask a run, open or closed, for its status.

        Raises:
            NotFoundError: there is no such run.
            NotYetError: no worker answers.
        """
        async with _translated(workflow_id):
            try:
                answer = await self._handle(workflow_id, run_id).query("status", rpc_timeout=QUERY_TIMEOUT)
            except WorkflowQueryFailedError as error:
                raise NotYetError(f"{workflow_id} cannot say its status: {error.message}", hint=_NO_WORKER) from error
        try:
            return Status.model_validate(answer)
        except ValidationError as error:
            raise UnavailableError(
                f"{workflow_id} answered with a status this program cannot read: {error.error_count()} problems",
                hint="worker and client may be of different versions",
            ) from error

    async def send(self, workflow_id: str, message: str, body: Model, *, update_id: str | None = None) -> Any:
        """Send a message to a run as an update and return the run's answer.

        Args:
            workflow_id: the run.
            message: ``decide``, ``abort``, ``retry``, ``skip``, ``promote``, ``hold`` or ``resume``.
            body: its content.
            update_id: makes the message idempotent: the same id runs once.

        Raises:
            NotFoundError: there is no such run.
            ConflictError: it has ended.
            MessageRefusedError: the run refused it, and says why.
            NotYetError: no worker answered in time; the message may still be handled.
        """
        payload = body.model_dump(mode="json", exclude_none=True)
        try:
            async with _translated(workflow_id):
                return await self._handle(workflow_id).execute_update(
                    message, payload, id=update_id, rpc_timeout=MESSAGE_TIMEOUT
                )
        except NotFoundError as error:
            # The server says "not found" for a run that has ended, too; a person must know which.
            description = await self.describe(workflow_id)
            if description.close_time is None:
                raise
            ended = description.status.name.lower() if description.status else "closed"
            raise ConflictError(
                f"{message} comes too late: {workflow_id} has ended ({ended})",
                hint=await self._after_the_end(workflow_id, message),
            ) from error

    async def _after_the_end(self, workflow_id: str, message: str) -> str:
        """Return the command to type instead: an undo only of the release that this run itself has put live."""
        look = f"constitution status {shlex.quote(workflow_id)}"
        if message != "abort":
            return look
        try:
            status = await self.status(workflow_id)
        except ConstitutionError:
            return look
        if status.workflow != "ConstitutionUpdate" or status.outcome is not Outcome.COMPLETED or not status.generation:
            return look
        return undo_command(status.generation)

    async def result(self, workflow_id: str, run_id: str | None = None) -> Any:
        """Wait for the end of a run and return its result.

        Raises:
            ContentError: the run failed; the message is its root cause.
        """
        async with _translated(workflow_id):
            return await self._handle(workflow_id, run_id).result()

    async def open_runs(self, types: tuple[str, ...]) -> list[tuple[str, str, str]]:
        """Return ``(workflow id, type, started at)`` of every open run of these types on our task queue."""
        listed = " OR ".join(f"WorkflowType = '{name}'" for name in types)
        query = f"ExecutionStatus = 'Running' AND TaskQueue = '{self._task_queue}' AND ({listed})"
        async with _translated("list of runs"):
            return [
                (run.id, run.workflow_type, run.start_time.isoformat(timespec="seconds"))
                async for run in self._client.list_workflows(query, rpc_timeout=CALL_TIMEOUT)
            ]

    async def workers(self) -> list[str]:
        """Return the identities of the workers that poll our task queue.

        Raises:
            UnavailableError: the server does not answer.
        """
        found: set[str] = set()
        since = datetime.now(UTC) - POLLED_WITHIN
        async with _translated("list of workers"):
            for kind in (TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW, TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY):
                answer = await self._client.workflow_service.describe_task_queue(
                    DescribeTaskQueueRequest(
                        namespace=self._client.namespace,
                        task_queue=TaskQueue(name=self._task_queue),
                        task_queue_type=kind,
                    ),
                    timeout=CALL_TIMEOUT,
                )
                found.update(
                    poller.identity
                    for poller in answer.pollers
                    if poller.last_access_time.ToDatetime(tzinfo=UTC) >= since
                )
        return sorted(found)

    async def failing(self, workflow_id: str) -> int:
        """Return how often the pending workflow task of a run has been tried; 0: none is pending."""
        description = await self.describe(workflow_id)
        return description.raw_description.pending_workflow_task.attempt

    def _handle(self, workflow_id: str, run_id: str | None = None) -> WorkflowHandle[Any, Any]:
        return self._client.get_workflow_handle(workflow_id, run_id=run_id)


def root_cause(error: BaseException) -> BaseException:
    """Return the innermost failure: ``ActivityError`` and its like carry no message of their own."""
    while isinstance(error, FailureError | WorkflowFailureError | WorkflowUpdateFailedError) and error.cause:
        error = error.cause
    return error


def failure_of(error: BaseException, *, kind: type[ConstitutionError], what: str) -> ConstitutionError:
    """Return a failed run or a refused message as an error of the domain, with its code, issues and hint.

    Args:
        error: what Temporal raised.
        kind: the class to make.
        what: start of the message, e.g. the workflow id.
    """
    cause = root_cause(error)
    if not isinstance(cause, ApplicationError):
        return kind(f"{what}: {cause}")
    issues: tuple[Issue, ...] = ()
    message, hint = cause.message, ""
    for detail in cause.details:
        if isinstance(detail, dict) and "message" in detail:
            message, hint = str(detail["message"]), str(detail.get("hint") or "")
            issues = tuple(
                Issue(**{name: str(value) for name, value in item.items() if name in Issue.model_fields})
                for item in detail.get("issues") or ()
                if isinstance(item, dict) and {"code", "message"} <= item.keys()
            )
            break
    return kind(f"{what}: {message} [{cause.type}]" if cause.type else f"{what}: {message}", issues=issues, hint=hint)


@asynccontextmanager
async def _translated(workflow_id: str) -> AsyncIterator[None]:
    try:
        yield
    except WorkflowUpdateFailedError as error:
        raise failure_of(error, kind=MessageRefusedError, what=f"{workflow_id} refused") from error
    except WorkflowFailureError as error:
        raise failure_of(error, kind=ContentError, what=workflow_id) from error
    except RPCTimeoutOrCancelledError as error:
        raise NotYetError(f"{workflow_id} did not answer in time", hint=_NO_WORKER) from error
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND:
            raise NotFoundError(
                f"Temporal has no such run: {workflow_id} ({error.message})",
                hint="constitution status; constitution releases  # open runs, and what became of closed ones",
            ) from error
        if error.status == RPCStatusCode.INVALID_ARGUMENT:
            raise InvalidRequestError(f"{workflow_id}: {error.message}") from error
        if error.status in {RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED}:
            raise NotYetError(f"{workflow_id} did not answer in time", hint=_NO_WORKER) from error
        if error.status == RPCStatusCode.FAILED_PRECONDITION:
            raise ConflictError(f"{workflow_id}: {error.message}") from error
        raise UnavailableError(
            f"Temporal cannot serve {workflow_id} now: {error.message}", hint="make status"
        ) from error
