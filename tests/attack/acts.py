"""What somebody does who reaches Temporal and has no key: each act is one call, seeded, counted by kind and answer."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final
from uuid import uuid4

from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import WorkflowHandle, WorkflowUpdateFailedError
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError, TemporalError
from temporalio.service import RPCError

from tests.attack.captured import Captor, Task
from tests.attack.corpus import MARK, Corpus, registered
from tests.world.environment import RunningEnvironment

ASSESSED: Final = frozenset({"run_regression_gate", "predict_shift", "sync_targets", "check_watch", "watch_metric"})
"""Activities of the assessor's queue."""

ALONE: Final = "standalone activity"
FOREIGN: Final = "activity of a foreign run"

SECONDS: Final = 6  # an activity that takes longer is left in the middle
BATCH: Final = 48  # activities that one captured run asks for
AT_ONCE: Final = 8
SHORT: Final = timedelta(seconds=5)
ANSWER: Final = timedelta(seconds=8)  # a message to a run that never answers it is one act, and is left
STEERING: Final = ("decide", "abort", "retry", "skip", "promote", "hold", "resume", "unknown")


@dataclass
class Tally:
    """How often each kind of act was tried, and what was answered."""

    tried: Counter[str] = field(default_factory=Counter)
    answers: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, kind: str, answer: str) -> None:
        """Count an act; of an answer its first words are kept."""
        self.tried[kind] += 1
        self.answers[kind, ":".join(answer.split(":")[:2])[:60]] += 1


class Attacker:
    """Acts on one environment.

    Args:
        env: which.
        corpus: what its histories tell.
        seed: of every choice.
    """

    def __init__(self, env: RunningEnvironment, corpus: Corpus, seed: int) -> None:
        self.tally = Tally()
        self._env = env
        self.corpus = corpus
        self._dice = random.Random(seed)  # noqa: S311 - choices, no secret
        self._captor = Captor(env.client, env.names.task_queue(), f"{env.names.namespace}/captured")
        self._foreign = Captor(env.client, f"{env.names.namespace}/foreign", f"{env.names.namespace}/foreign")
        self._started: list[str] = []

    async def attack(self, acts: int) -> None:
        """Do so many acts of every kind; returns when each has been answered, and no run of the attacker's is open."""
        kinds: tuple[tuple[Callable[[int], Coroutine[Any, Any, None]], float], ...] = (
            (self.activities, 0.6),
            (self.starts, 0.1),
            (self.messages, 0.2),
            (self.interventions, 0.06),
            (self.standalone, 0.04),
        )
        for kind, share in kinds:
            await kind(max(1, round(acts * share)))
        await self.leave()

    async def tried(self, kind: str, act: Coroutine[Any, Any, str]) -> None:
        """Do one act, and count it; also one that is refused."""
        try:
            self.tally.add(kind, await asyncio.wait_for(act, ANSWER.total_seconds()))
        except WorkflowUpdateFailedError as error:
            cause = error.cause
            self.tally.add(kind, f"refused: {cause.type if isinstance(cause, ApplicationError) else cause}")
        except RPCError as error:
            self.tally.add(kind, f"refused: {error.status.name}")
        except (TemporalError, TimeoutError) as error:
            self.tally.add(kind, f"ended: {type(error).__name__}")

    async def activities(self, number: int) -> None:
        """Have every activity run from captured runs, with inputs of real runs, mutated; each type as often."""
        types = registered()
        tasks = [self._task(types[index % len(types)]) for index in range(number)]
        self._dice.shuffle(tasks)
        await self.captured(*tasks)

    async def captured(self, *tasks: Task) -> list[str]:
        """Have activities run by captured runs; return what became of each, in their order."""
        answers: list[str] = []
        async with self._captor.polling():
            for at in range(0, len(tasks), BATCH):
                kind = self._dice.choice(("ConstitutionUpdate", "ConstitutionRollback"))
                answers += await self._captor.ask(kind, list(tasks[at : at + BATCH]))
        for task, answer in zip(tasks, answers, strict=True):
            self.tally.add(f"activity {task['activity']}", answer)
        return answers

    async def foreign(self, *tasks: Task) -> None:
        """Have activities run by a workflow of our name that waits on a task queue of the attacker's."""
        async with self._foreign.polling():
            for answer in await self._foreign.ask("ConstitutionUpdate", list(tasks)):
                self.tally.add(FOREIGN, answer)

    def task(self, activity: str, value: Any) -> Task:
        """What to ask whom."""
        queue = self._env.names.assessor_queue() if activity in ASSESSED else self._env.names.task_queue()
        return {"activity": activity, "queue": queue, "input": value, "seconds": SECONDS}

    def _task(self, activity: str) -> Task:
        return self.task(activity, self.corpus.input_of(self._dice, activity))

    async def starts(self, number: int) -> None:
        """Start runs of every type, with inputs of real ones, mutated, under free and under taken ids."""
        types = [*sorted(self.corpus.starts), "ConstitutionGuard", "ConstitutionReconcile", "Unknown"]
        known = [run.id async for run in self._env.client.list_workflows(self._ours)]
        acts: list[Coroutine[Any, Any, None]] = []
        for index in range(number):
            kind = types[index % len(types)]
            inputs = self.corpus.starts.get(kind) or self.corpus.starts["ConstitutionUpdate"]
            value = self.corpus.mutated(self._dice, self._dice.choice(inputs))
            taken = self._dice.random() < 0.3
            workflow_id = self._dice.choice(known) if taken else f"{self._env.names.namespace}/attack/{uuid4().hex[:8]}"
            acts.append(self.tried(f"start {kind}", self._start(kind, workflow_id, value)))
        await _few_at_once(acts)

    async def _start(self, kind: str, workflow_id: str, value: Any) -> str:
        await self._env.client.start_workflow(
            kind,
            value,
            id=workflow_id,
            task_queue=self._env.names.task_queue(),
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
        )
        self._started.append(workflow_id)
        return "answered: started"

    async def messages(self, number: int) -> None:
        """Send every signal, update and query to runs that wait and that are closed."""
        known = [(run.id, run.run_id) async for run in self._env.client.list_workflows(self._ours)]
        waiting = await self._env.open_runs()
        acts: list[Coroutine[Any, Any, None]] = []
        for index in range(number):
            name = STEERING[index % len(STEERING)]
            seen = self.corpus.messages.get(name) or [{"reason": MARK, "step": "watch", "order": None}]
            value = self.corpus.mutated(self._dice, self._dice.choice(seen))
            workflow_id, run_id = self._dice.choice(known)
            handle = self._env.client.get_workflow_handle(workflow_id, run_id=run_id)
            if waiting and self._dice.random() < 0.6:
                handle = self._env.run(self._dice.choice(waiting))
            match self._dice.randrange(3):
                case 0:
                    acts.append(self.tried(f"signal {name}", self._signal(handle, name, value)))
                case 1:
                    acts.append(self.tried(f"update {name}", self._update(handle, name, value)))
                case _:
                    asked = handle.query(self._dice.choice(("status", "unknown")), value, rpc_timeout=SHORT)
                    acts.append(self.tried("query", _said(asked)))
        await _few_at_once(acts)

    async def _signal(self, handle: WorkflowHandle[Any, Any], name: str, value: Any) -> str:
        await handle.signal(name, value, rpc_timeout=SHORT)
        return "answered: taken"

    async def _update(self, handle: WorkflowHandle[Any, Any], name: str, value: Any) -> str:
        return await _said(handle.execute_update(name, value, rpc_timeout=SHORT))

    async def interventions(self, number: int) -> None:
        """Complete, fail and heartbeat activities by hand; reset, cancel and terminate runs."""
        runs = [(run.id, run.run_id) async for run in self._env.client.list_workflows(self._ours)]
        acts: list[Coroutine[Any, Any, None]] = []
        for index in range(number):
            workflow_id, run_id = self._dice.choice(runs)
            handle = self._env.client.get_workflow_handle(workflow_id, run_id=run_id)
            match index % 3:
                case 0:
                    acts.append(self.tried("reset", self._reset(workflow_id, run_id)))
                case 1:
                    acts.append(self.tried("cancel", _said(handle.cancel(rpc_timeout=SHORT))))
                case _:
                    acts.append(self.tried("complete an activity", self.complete(handle)))
        await _few_at_once(acts)

    async def complete(self, handle: WorkflowHandle[Any, Any]) -> str:
        """Give a pending activity of a run an invented result, another run's if there is one."""
        described = await handle.describe(rpc_timeout=SHORT)
        pending = described.raw_description.pending_activities
        if not pending:
            return "refused: nothing is pending"
        one = self._dice.choice(list(pending))
        results = self.corpus.results.get(one.activity_type.name) or [{"verdict": "ok"}]
        said = self._env.client.get_async_activity_handle(
            workflow_id=handle.id, run_id=described.run_id, activity_id=one.activity_id
        )
        await said.complete(self.corpus.mutated(self._dice, self._dice.choice(results)))
        return f"answered: {one.activity_type.name} was completed"

    async def _reset(self, workflow_id: str, run_id: str) -> str:
        request = ResetWorkflowExecutionRequest(
            namespace=self._env.client.namespace, reason=MARK, request_id=str(uuid4()), workflow_task_finish_event_id=4
        )
        request.workflow_execution.workflow_id, request.workflow_execution.run_id = workflow_id, run_id
        await self._env.client.workflow_service.reset_workflow_execution(request, timeout=SHORT)
        self._started.append(workflow_id)
        return "answered: reset"

    async def standalone(self, number: int) -> None:
        """Ask for activities without any run, as `temporal activity start` does."""
        types = registered()
        acts: list[Coroutine[Any, Any, None]] = []
        for index in range(number):
            task = self._task(types[index % len(types)])
            acts.append(self.tried(ALONE, self._standalone(task)))
        await _few_at_once(acts)

    async def _standalone(self, task: Task) -> str:
        handle = await self._env.client.start_activity(
            task["activity"],
            task["input"],
            id=f"{self._env.names.namespace}/alone/{uuid4().hex[:8]}",
            task_queue=task["queue"],
            schedule_to_close_timeout=timedelta(seconds=10),
        )
        return f"answered: {await handle.result()}"

    async def leave(self) -> None:
        """Terminate what the attacker has started, so that the others come to rest."""
        for workflow_id in dict.fromkeys(self._started):
            try:
                await self._env.run(workflow_id).terminate("the attack is over", rpc_timeout=SHORT)
            except RPCError:
                continue  # it has closed by itself

    @property
    def _ours(self) -> str:
        return f"TaskQueue = '{self._env.names.task_queue()}' AND WorkflowType != 'ConstitutionReconcile'"


async def _few_at_once(acts: list[Coroutine[Any, Any, None]]) -> None:
    places = asyncio.Semaphore(AT_ONCE)

    async def one(act: Coroutine[Any, Any, None]) -> None:
        async with places:
            await act

    await asyncio.gather(*(one(act) for act in acts))


async def _said(asked: Coroutine[Any, Any, Any]) -> str:
    return f"answered: {str(await asked)[:100]}"
