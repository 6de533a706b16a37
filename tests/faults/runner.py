"""Runs one cell: brings about the situation, hits it at the moment, waits for the end, and has it audited."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any, Final

from temporalio.client import WorkflowExecutionStatus, WorkflowHandle
from temporalio.service import RPCError

from constitution.messages import Status
from constitution.release import Kind, Release
from tests.faults.auditor import Audit
from tests.faults.cells import Cell, allowed
from tests.faults.environment import ProxiedEnvironment, ProxiedEnvironments
from tests.faults.faults import Fault
from tests.faults.operators import LOOK, Operators
from tests.helpers import eventually
from tests.world.author import Proposal
from tests.world.wire import Hold, Wire

REACHED: Final = timedelta(seconds=60)  # from the start of a run to the step of its fault
OUTCOME: Final = timedelta(seconds=150)  # from the end of a fault to the run's outcome
REST: Final = timedelta(seconds=120)  # from the outcome to no open run and nothing undelivered
NOTICED: Final = timedelta(milliseconds=300)  # a connection in use has met the fault by then

# Requests that a wire can hold: step -> (method, part of the path, part of the body).
REQUESTS: Final[dict[str, tuple[str, str, bytes]]] = {
    "signatures": ("GET", "/signatures", b""),
    "stage": ("POST", "/v1/constitution/artifacts", b""),
    "validate": ("POST", "/v1/constitution/validate", b""),
    "lease": ("POST", "/v1/constitution/lease", b""),
    "publish": ("POST", "/v1/constitution/load", b""),
    "confirm": ("POST", "/standing", b""),
}
FIRST: Final = {
    "ConstitutionUpdate": ("GET", "/v1/constitution/change-requests/", b""),
    "ConstitutionRollback": ("GET", "/v1/constitution/releases", b""),
}
TOLD: Final = {"ConstitutionUpdate": b"completed", "ConstitutionRollback": b"rolled_back"}


@dataclass(kw_only=True)
class Result:
    """What became of a cell. Seconds are wall clock on a shared machine: upper bounds."""

    id: str
    cell: dict[str, str]
    green: bool = False
    outcome: str = ""
    detail: str = ""
    allowed: list[str] = field(default_factory=list)
    checks: dict[str, int] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)
    error: str = ""
    recovery_s: float | None = None
    rest_s: float | None = None
    seconds: float = 0.0
    people: dict[str, int] = field(default_factory=dict)
    command: str = ""

    def as_json(self) -> dict[str, Any]:
        """For the report."""
        return asdict(self)


class Runner:
    """Runs cells one after another on one set of servers.

    Args:
        environments: servers, proxies and the environment that runs.
    """

    def __init__(self, environments: ProxiedEnvironments) -> None:
        self._environments = environments

    async def run(self, cell: Cell) -> Result:
        """Run a cell; a red one leaves its environment behind, with its logs."""
        result = Result(id=cell.id, cell=dict(cell.values()), allowed=sorted(allowed(cell)))
        result.command = f"python -m tests.faults --cell {cell.id}"
        began = time.monotonic()
        try:
            env = await self._env_for(cell)
            await _Cell(self._environments, env, cell, result).run()
        except Exception as error:  # noqa: BLE001 - whatever goes wrong is this cell's result; the next one runs
            result.error = f"{type(error).__name__}: {error}"[:2000]
        result.green = not result.error and not result.findings and result.outcome in result.allowed
        result.seconds = round(time.monotonic() - began, 1)
        if not result.green:
            await self._environments.leave(keep_logs=True)
        return result

    async def _env_for(self, cell: Cell) -> ProxiedEnvironment:
        if self._environments.current is None or cell.situation == "first_release":
            return await self._environments.fresh()
        return self._environments.current


class _Cell:
    def __init__(self, environments: ProxiedEnvironments, env: ProxiedEnvironment, cell: Cell, result: Result) -> None:
        self._env = env
        self._cell = cell
        self._result = result
        self._fault = Fault(environments, env, cell)
        self._proposal: Proposal | None = None
        self._operators = Operators(env, None)
        self._latest: Status | None = None
        self._by_hand: str | None = None

    async def run(self) -> None:
        handle_of = await self._prepare()
        self._operators = Operators(self._env, self._proposal)
        try:
            async with self._operators.at_work(), self._armed() as reached:
                handle = await handle_of()
                injection = asyncio.create_task(self._hit(handle, reached))
                try:
                    healed = await injection
                finally:
                    injection.cancel()
                self._operators.patient = False
                self._result.outcome = await self._outcome(handle, timedelta(seconds=OUTCOME.total_seconds()))
                ended = time.monotonic()
                self._result.detail = await _why(handle)
                self._result.recovery_s = round(max(0.0, ended - healed), 2)
                await self._fault.end()
                await self._at_rest()
                self._result.rest_s = round(time.monotonic() - ended, 2)
        finally:
            await self._fault.end()
            self._result.people = dict(self._operators.said)
        audit = await self._audit()
        self._result.checks = {str(number): times for number, times in sorted(audit.checks.items())}
        self._result.findings += [f"{finding.invariant}: {finding.what}" for finding in audit.findings]

    # --- the situation

    async def _prepare(self) -> Callable[[], Awaitable[WorkflowHandle[Any, Any]]]:
        match self._cell.situation:
            case "first_release":
                return await self._update()
            case "update" | "rollback_during_update":
                await self._something_live()
                return await self._update()
            case "rollback":
                await self._something_live()
                await self._released()
                return await self._rollback()
            case _:
                await self._something_live()
                if (await self._newest()).kind is Kind.UPDATE:
                    await self._released()
                    await self._finished(await (await self._rollback())())
                return await self._rollback()

    async def _something_live(self) -> None:
        if await self._env.author.current() is None:
            await self._released()

    async def _released(self) -> None:
        await self._finished(await (await self._update())())

    async def _finished(self, handle: WorkflowHandle[Any, Any]) -> None:
        """Wait for the end of a run without a fault."""
        self._operators = Operators(self._env, self._proposal)
        async with self._operators.at_work():
            outcome = await self._outcome(handle, OUTCOME)
            assert outcome in ("completed", "rolled_back"), f"before the fault, {handle.id} was {outcome}"
            await self._closed()

    async def _update(self) -> Callable[[], Awaitable[WorkflowHandle[Any, Any]]]:
        self._proposal = proposal = await self._env.author.propose()
        strategy = "glance" if self._cell.step == "watch" else "default"
        return lambda: self._env.update(proposal, strategy=strategy)

    async def _rollback(self) -> Callable[[], Awaitable[WorkflowHandle[Any, Any]]]:
        bad = (await self._newest()).generation
        return lambda: self._start_rollback(bad)

    async def _newest(self) -> Release:
        return max(await self._env.service.releases(), key=lambda release: release.generation)

    async def _start_rollback(self, bad: int) -> WorkflowHandle[Any, Any]:
        return await self._env.start_rollback(bad, "the cell asks")

    # --- the moment

    @property
    def _type(self) -> str:
        return "ConstitutionRollback" if self._cell.situation.startswith("rollback_of") or (
            self._cell.situation == "rollback"
        ) else "ConstitutionUpdate"  # fmt: skip

    def _request(self) -> tuple[Wire, tuple[str, str, bytes], bool] | None:  # noqa: PLR0911 - one return a kind
        """The request to hold, and whether it is its answer that is held; None: the run's status tells the moment."""
        step, moment = self._cell.step, self._cell.moment
        service, slack = self._env.service_wire, self._env.slack_wire
        match step, moment:
            case "request", _:
                return service, FIRST[self._type], moment == "after"
            case "broadcast", _:
                return slack, ("POST", "chat.postMessage", TOLD[self._type]), moment == "after"
            case "gate", "before":
                return service, REQUESTS["signatures"], True
            case "gate", "after":
                return service, ("POST", "/v1/constitution/evidence", b""), True
            case "board", "before":
                return slack, ("POST", "chat.postMessage", b""), False
            case "prove", "before":
                return service, REQUESTS["publish"], True
            case "watch", "after":
                return service, REQUESTS["confirm"], False
            case _ if step in REQUESTS:
                return service, REQUESTS[step], moment == "after"
            case _:
                return None

    @contextlib.asynccontextmanager
    async def _armed(self) -> AsyncIterator[Hold | None]:
        """Set up the wire before the run starts."""
        if self._cell.fault == "late" and self._cell.system == "valkey":
            with self._env.redis_wire.holding() as hold:
                yield hold
            return
        wanted = self._request()
        if wanted is None:
            yield None
            return
        wire, request, answered = wanted
        with wire.holding(*request, answered=answered) as hold:
            yield hold

    async def _hit(self, handle: WorkflowHandle[Any, Any], hold: Hold | None) -> float:
        """Wait for the moment, make the fault, take it away; return when that was (monotonic seconds)."""
        if hold is None:
            await self._until_status(handle)
        else:
            await hold.reached(REACHED)
        if self._cell.situation == "rollback_during_update":
            await self._change_of_mind(handle)
        try:
            if hold is not None and self._cell.moment == "during":
                hold.release()
            await self._fault.inject()
            if hold is not None and self._cell.fault not in ("late", "twice"):
                await asyncio.sleep(NOTICED.total_seconds())
                hold.release()
            await self._last(handle, hold)
        finally:
            await self._fault.heal()
            if hold is not None:
                hold.release()
        healed = time.monotonic()
        if hold is not None and self._cell.fault == "late":
            with contextlib.suppress(AssertionError):  # nobody may be there any more to be served
                await hold.over(timedelta(seconds=5))
            if self._cell.system == "valkey":
                self._result.findings += await self._env.auditor.never_back()
        return healed

    async def _change_of_mind(self, handle: WorkflowHandle[Any, Any]) -> None:
        """A person wants the update undone: by a rollback where it has published, else by an abort or a cancel."""
        if self._cell.system == "valkey" and self._cell.fault == "late":  # what is late has been published
            await self._start_rollback((await self._newest()).generation)
        elif self._cell.step == "publish" and self._cell.moment == "before":
            await handle.execute_update("abort", {"reason": "the cell asks"}, rpc_timeout=timedelta(seconds=10))
        elif self._cell.step == "publish" and self._cell.moment == "during":
            await handle.cancel()
        else:
            await self._start_rollback((await self._newest()).generation)

    async def _last(self, handle: WorkflowHandle[Any, Any], hold: Hold | None) -> None:
        """Let the fault last; one that is about lateness ends as soon as the run has gone on without what is late."""
        ends = time.monotonic() + self._fault.lasts.total_seconds()
        while time.monotonic() < ends:
            await asyncio.sleep(0.2)
            if self._cell.fault in ("late", "twice") and hold is not None:
                status = await self._operators.status(handle)
                if status is not None and self._passed(status):
                    return

    async def _until_status(self, handle: WorkflowHandle[Any, Any]) -> None:
        ends = time.monotonic() + REACHED.total_seconds()
        while time.monotonic() < ends:
            status = await self._operators.status(handle)
            if status is not None and self._is_the_moment(status):
                return
            await asyncio.sleep(LOOK.total_seconds())
        raise AssertionError(f"{self._cell.step} was not reached: {status}")

    def _is_the_moment(self, status: Status) -> bool:
        """Whether the run is at the moment, or already beyond it."""
        if status.outcome is not None:
            return True
        step, moment = self._cell.step, self._cell.moment
        if step == "prove":
            published = status.generation is not None and _state(status, "publish") != "pending"
            return published if moment == "during" else _state(status, "publish") == "done"
        if step == "board":
            return _state(status, "board") == "waiting" if moment == "during" else bool(status.approvers)
        order = [entry.name for entry in status.steps]
        before = order[order.index(step) - 1]
        match moment:
            case "before":
                return _state(status, before) == "done"
            case "during":
                return _state(status, step) in ("running", "waiting", "done", "failed")
            case _:
                return _state(status, step) in ("done", "failed")

    def _passed(self, status: Status) -> bool:
        if self._cell.system == "valkey" and self._cell.situation == "rollback_during_update":
            return status.outcome is not None  # something newer must have been written before what is late arrives
        name = {"prove": "publish", "request": "request"}.get(self._cell.step, self._cell.step)
        return status.outcome is not None or _state(status, name) in ("done", "undone")

    # --- the end

    async def _outcome(self, handle: WorkflowHandle[Any, Any], within: timedelta) -> str:
        ends = time.monotonic() + within.total_seconds()
        while time.monotonic() < ends:
            try:
                described = await handle.describe(rpc_timeout=timedelta(seconds=5))
            except RPCError:
                described = None
            if described is not None and described.status is not WorkflowExecutionStatus.RUNNING:
                return await _said(handle)
            await asyncio.sleep(0.1)
        status = await self._operators.status(handle)
        raise AssertionError(f"no outcome of {handle.id} within {within}: {_summary(status)}")

    async def _closed(self) -> None:
        async def nothing_open() -> bool:
            try:
                opened = await self._env.run_group()
            except RPCError as error:
                raise AssertionError(str(error)) from error
            assert not opened, f"open: {opened}"
            return True

        await eventually(nothing_open, REST)

    async def _at_rest(self) -> None:
        try:
            await self._closed()
        except AssertionError as error:
            states = [f"{i}: {_summary(await self._operators.status(self._env.run(i)))}"
                      for i in await self._env.run_group()]  # fmt: skip
            raise AssertionError(f"{error}; {states}") from error

    async def _audit(self) -> Audit:
        """Audit until nothing is found, or for half a minute: consumers and the relay may be catching up."""
        ends = time.monotonic() + 30
        while True:
            try:
                audit = await self._env.auditor.audit()
            except Exception:  # a server that has just come back may refuse once more
                if time.monotonic() > ends:
                    raise
            else:
                if not audit.findings or time.monotonic() > ends:
                    return audit
            await asyncio.sleep(0.5)


def _state(status: Status, step: str) -> str:
    return next((entry.state for entry in status.steps if entry.name == step), "pending")


def _summary(status: Status | None) -> str:
    if status is None:
        return "it does not answer"
    errors = "; ".join(f"{step.name}: {step.last_error}" for step in status.steps if step.last_error)
    return f"{status.phase.value}, step {status.step}, waits for {status.waiting_for}; {errors}"


async def _said(handle: WorkflowHandle[Any, Any]) -> str:
    """The outcome that a closed run wrote beside itself; its status in Temporal where it wrote none."""
    described = await handle.describe()
    found = described.search_attributes.get("ConstitutionOutcome")
    status = described.status.name if described.status else ""
    return str(found[0]) if found else f"none ({status})"


async def _why(handle: WorkflowHandle[Any, Any]) -> str:
    """What a failed run says about its end; empty for one that completed."""
    last = (await handle.fetch_history()).events[-1]
    return str(last.workflow_execution_failed_event_attributes.failure.message)[:1000]
