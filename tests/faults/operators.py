"""What board and operators do while a cell runs: they decide when a run asks the board, and say retry when it asks."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Final, Never

from temporalio.client import RPCTimeoutOrCancelledError, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.service import RPCError

from constitution.errors import ConstitutionError
from constitution.messages import Phase, Status
from tests.faults.environment import ProxiedEnvironment
from tests.world.author import Proposal
from tests.world.environment import state_of
from tests.world.meanwhile import meanwhile

ASK: Final = timedelta(seconds=3)  # a query that takes longer finds no worker: it is asked again
LOOK: Final = timedelta(milliseconds=30)
BOARD: Final = ("alva", "bruno")


class Operators:
    """They act on every open run of the environment, and are seen to: `said` counts what they said.

    Args:
        env: their environment.
        proposal: what the update of the cell proposes.
    """

    def __init__(self, env: ProxiedEnvironment, proposal: Proposal | None) -> None:
        self._env = env
        self._proposal = proposal
        self.said: Counter[str] = Counter()
        self.patient = True  # while a fault lasts nobody says retry: that would be luck

    @contextlib.asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Have them look at all open runs until the block ends."""
        async with meanwhile(self._work()):
            yield

    async def status(self, handle: WorkflowHandle[Any, Any]) -> Status | None:
        """What a run says of itself; None while nobody answers."""
        try:
            answer: Status = await handle.query("status", result_type=Status, rpc_timeout=ASK)
        except RPCError:
            return None
        return answer

    async def _work(self) -> Never:
        while True:
            try:
                opened = await self._env.run_group()
            except RPCError:
                opened = []
            for workflow_id in opened:
                if "/guard/" not in workflow_id:
                    handle = self._env.run(workflow_id)
                    status = await self.status(handle)
                    if status is not None:
                        await self._answer(handle, status)
            await asyncio.sleep(0.3)

    async def _answer(self, handle: WorkflowHandle[Any, Any], status: Status) -> None:
        try:
            if state_of(status, "board") == "waiting":
                for person in BOARD:
                    if person not in status.approvers:
                        await self._approve(handle, status, person)
            if status.phase is Phase.NEEDS_A_PERSON and not self.patient:
                self.said["retry"] += 1
                await self._retry(handle, status)
        except (RPCError, RPCTimeoutOrCancelledError, WorkflowUpdateFailedError, ConstitutionError):
            return  # it was not asked any more, or nobody answered: the next look shows

    async def _retry(self, handle: WorkflowHandle[Any, Any], status: Status) -> None:
        message = {"order": self._env.author.order("retry", handle.id, status).model_dump(mode="json")}
        await handle.execute_update("retry", message, rpc_timeout=timedelta(seconds=10))

    async def _approve(self, handle: WorkflowHandle[Any, Any], status: Status, person: str) -> None:
        if status.workflow == "ConstitutionUpdate":
            if self._proposal is None or status.change_request != self._proposal.change_request:
                return
            envelope = self._env.author.approval(person, self._proposal, status)
        else:
            envelope = await self._env.author.rollback_approval(person, int(handle.id.rpartition("/")[2]), status)
        self.said["approve"] += 1
        message = {"approval": envelope.model_dump(mode="json")}
        await handle.execute_update("decide", message, rpc_timeout=timedelta(seconds=10))
