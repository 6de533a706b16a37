"""What people, programs and accidents do to an environment. Knows the real systems and nothing of the model."""

import asyncio
import json
import secrets
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import uuid4

import pytest
import redis.asyncio
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from temporalio.client import WorkflowHandle, WorkflowUpdateFailedError
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError

from constitution.api import LeaseRelease, LeaseRequest, LoadRequest, WorkflowRef
from constitution.errors import ContentError, LeaseLostError, NotApprovedError
from constitution.messages import Phase, Status
from constitution.release import Kind
from deploy.embedded.development import ENVIRONMENT
from deploy.embedded.kafka import client_configuration
from tests.helpers import eventually
from tests.world.author import Proposal
from tests.world.environment import LEAF, SOON, End, RunningEnvironment

Handle = WorkflowHandle[Any, Any]
BOARD: Final = ("alva", "bruno")
LOAD: Final = ("POST", "/v1/constitution/load")
ENDS: Final = timedelta(seconds=90)  # a worker that died in mid-step costs an attempt's 20 s
ASK: Final = timedelta(seconds=3)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """An update that was started, and waits for the board until somebody decides."""

    proposal: Proposal
    handle: Handle
    status: Status


class Acts:
    """Acts on one environment.

    Args:
        env: which.
    """

    def __init__(self, env: RunningEnvironment) -> None:
        self._env = env

    # --- updates

    async def ask(self, proposal: Proposal | None = None, **more: Any) -> Asked:
        """Draft, sign, file and start an update; returns when the board is asked."""
        proposal = proposal or await self._env.author.propose()
        handle = await self._env.update(proposal, **more)
        status = await self._env.until_step(handle, "board", "waiting")
        return Asked(proposal=proposal, handle=handle, status=status)

    async def decide(self, asked: Asked, person: str, **changes: Any) -> None:
        """Send one board member's signed decision."""
        envelope = self._env.author.approval(person, asked.proposal, asked.status, **changes)
        await asked.handle.execute_update("decide", {"approval": envelope.model_dump(mode="json")})

    async def approve(self, asked: Asked) -> None:
        """Two members of the board approve."""
        for person in BOARD:
            await self.decide(asked, person)

    async def decide_too_late(self, asked: Asked) -> None:
        """Send an approval that has expired; it must be refused."""
        now = datetime.now(UTC)
        with pytest.raises(WorkflowUpdateFailedError):
            await self.decide(asked, "chen", issued_at=now - timedelta(days=2), expires_at=now - timedelta(days=1))

    async def approve_for_a_moment(self, asked: Asked) -> None:
        """One approval has expired before the second is given."""
        until = datetime.now(UTC) + timedelta(seconds=2)
        await self.decide(asked, BOARD[0], expires_at=until)
        await eventually(lambda: datetime.now(UTC) > until)
        await self.decide(asked, BOARD[1])

    async def end(self, asked: Asked) -> End:
        """Wait for an update's end."""
        return await self._end(asked.handle)

    async def _end(self, handle: Handle) -> End:
        """Wait for a run's end, unless it, or a rollback, asks for people whom nobody has promised."""
        ending = asyncio.create_task(self._env.end(handle, ENDS))
        try:
            while not ending.done():
                for run in await self._env.open_runs():
                    if "/guard/" not in run and (run == handle.id or "constitution-rollback/" in run):
                        await self._asks_for_nobody(run)
                await asyncio.wait({ending}, timeout=1)
            return ending.result()
        finally:
            ending.cancel()

    async def _asks_for_nobody(self, run: str) -> None:
        try:
            status = await self._env.run(run).query("status", result_type=Status, rpc_timeout=ASK)
        except RPCError:
            return  # its worker is away
        unasked = status.workflow == "ConstitutionRollback" and status.phase is Phase.WAITING and not status.approvers
        asks = status.phase is Phase.NEEDS_A_PERSON or unasked
        assert not asks, f"{run} waits for {status.waiting_for} in step {status.step}"

    async def guarded_end(self, handle: Handle) -> End:
        """Wait for the end of a run that was terminated, and of its guard; return the guard's."""
        return await self._end(await self._env.guard_of(handle))

    async def stop(self, asked: Asked, how: str) -> None:
        """Abort, cancel or terminate."""
        match how:
            case "abort":
                await self._env.steer(asked.handle, "abort", "a mistake")
            case "cancel":
                await asked.handle.cancel()
            case _:
                await asked.handle.terminate("an operator's mistake")

    @asynccontextmanager
    async def approved_and_in_sync(self, asked: Asked) -> AsyncIterator[Status]:
        """Approve, and keep the run where its release is live and one target has not followed."""
        async with self._env.paused(LEAF):
            await self.approve(asked)
            yield await self._env.until_step(asked.handle, "sync")

    async def stop_in_sync(self, asked: Asked, how: str) -> End:
        """Approve, and stop the run after its release went live; the end of whoever undid it."""
        if how == "dead target":
            await self._env.kill(LEAF)
            await self.approve(asked)
            end = await self.end(asked)
            await self._env.restart(LEAF)
            return end
        async with self.approved_and_in_sync(asked) as status:
            if how == "rollback":
                rollback = await self.start_rollback(status.generation or 0)
                await self._env.until(rollback, lambda s: s.generation is not None)
            else:
                if how == "cancel":  # refused: what is live takes a name
                    await asked.handle.cancel()
                await self.stop(asked, "terminate" if how == "terminate" else "abort")
                if how != "terminate":
                    said = await self._env.until(asked.handle, lambda s: s.rollback_workflow is not None)
                if how == "terminated undo":  # its rollback is terminated on its way: it is started again
                    undoing = self._env.run(said.rollback_workflow or "")
                    await self._env.until(undoing, lambda s: s.generation is not None)
                    await undoing.terminate("an operator's mistake")
        if how == "terminate":
            return await self.guarded_end(asked.handle)
        if how == "rollback":
            end = await self._end(rollback)
            assert end.type is None, end.message
        return await self.end(asked)

    async def hold_and_resume(self, asked: Asked) -> End:
        """Approve, hold what is live, and resume; what nobody signed ends no hold."""
        async with self.approved_and_in_sync(asked):
            await self._env.steer(asked.handle, "hold", "let me look")
        await self._env.until_step(asked.handle, "watch", "waiting")
        with pytest.raises(WorkflowUpdateFailedError):
            await asked.handle.execute_update("resume", {"reason": "go on"})
        await self._env.steer(asked.handle, "resume", "looks good")
        return await self.end(asked)

    async def publish(self, asked: Asked, fault: str) -> None:
        """Approve an update that may go live, and let one thing go wrong on its way."""
        env = self._env
        match fault:
            case "service killed before the load":
                with env.service_wire.holding(*LOAD) as load:
                    await self._approved_until(asked, load)
                    await env.kill("constitution-service")
                    load.release()
                await env.restart("constitution-service")
            case "service killed after the load":
                with env.service_wire.holding(*LOAD, answered=True) as load:
                    await self._approved_until(asked, load)
                    await env.kill("constitution-service")
                    load.drop()
                await env.restart("constitution-service")
            case "worker killed after the load":
                with env.service_wire.holding(*LOAD, answered=True) as load:
                    await self._approved_until(asked, load)
                    await env.kill("worker")
                await env.restart("worker")
            case "target killed at the load":
                with env.service_wire.holding(*LOAD) as load:
                    await self._approved_until(asked, load)
                    await env.kill(LEAF)
                    await env.restart(LEAF)
            case "cache flushed at the load":
                with env.service_wire.holding(*LOAD, answered=True) as load:
                    await self._approved_until(asked, load)
                    await self.flush_cache()
            case "answer of the load lost":
                with env.service_wire.holding(*LOAD, answered=True) as load:
                    await self._approved_until(asked, load)
                    load.drop()
            case "answer of Slack lost":
                with env.slack_wire.holding("POST", "chat.postMessage", b"completed", answered=True) as post:
                    await self._approved_until(asked, post)
                    post.drop()
            case "stale load meanwhile":
                with env.service_wire.holding(*LOAD) as load:
                    stale = await self._stale_token()
                    await self._approved_until(asked, load)
                    await self._refused(asked, LeaseLostError, token=stale)
            case "terminated while it is told":
                with env.slack_wire.holding("POST", "chat.postMessage", b"completed") as post:
                    await self._approved_until(asked, post)
                    await asked.handle.terminate("an operator's mistake")
                    post.drop()
            case _:
                assert fault == "none", fault
                await self.approve(asked)

    async def _approved_until(self, asked: Asked, held: Any) -> None:
        await self.approve(asked)
        await held.reached()

    async def start_again(self, asked: Asked) -> None:
        """A second operator starts the same change request; Temporal refuses."""
        with pytest.raises(WorkflowAlreadyStartedError):
            await self._env.update(asked.proposal)

    async def race(self, first: Asked, second: Asked) -> tuple[End, End]:
        """Approve the second while the first holds the lease and is about to load."""
        with self._env.service_wire.holding(*LOAD) as load:
            await self._approved_until(first, load)
            await self.approve(second)
            refused = await self.end(second)
        return await self.end(first), refused

    async def terminate_guard(self, asked: Asked) -> None:
        """Terminate the guard of a waiting run; returns when its parent has started it again."""
        guard = await self._env.guard_of(asked.handle)
        first = (await guard.describe()).run_id
        await guard.terminate("an operator's mistake")

        async def again() -> bool:
            return (await guard.describe()).run_id != first

        await eventually(again, SOON)

    # --- rollbacks by hand

    async def start_rollback(self, bad: int, to: int | None = None) -> Handle:
        """Start the rollback of a generation."""
        more = {} if to is None else {"to": to}
        return await self._env.start_rollback(bad, "found bad", **more)

    async def roll_back(self, bad: int, to: int | None, *, by_board: bool, how: str) -> End:
        """Roll back by hand, with one thing going wrong; the end of the run, or of the guard that finished it."""
        env = self._env
        match how:
            case "terminated":
                with env.service_wire.holding("POST", "/standing") as stand:
                    handle = await self._rolling_back(bad, to, by_board=by_board)
                    await stand.reached()
                    await handle.terminate("an operator's mistake")
                    stand.drop()
                return await self.guarded_end(handle)
            case "service killed after the load":
                with env.service_wire.holding(*LOAD, answered=True) as load:
                    handle = await self._rolling_back(bad, to, by_board=by_board)
                    await load.reached()
                    await env.kill("constitution-service")
                    load.drop()
                await env.restart("constitution-service")
            case "started twice":
                with env.service_wire.holding(*LOAD) as load:
                    handle = await self._rolling_back(bad, to, by_board=by_board)
                    await load.reached()
                    with pytest.raises(WorkflowAlreadyStartedError):
                        await self.start_rollback(bad, to)
            case _:
                assert how == "plain", how
                handle = await self._rolling_back(bad, to, by_board=by_board)
        return await self._end(handle)

    async def roll_back_nothing(self, bad: int) -> End:
        """Ask for a rollback where nothing is live and nothing can be restored; the end of the run."""
        return await self._end(await self.start_rollback(bad))

    async def _rolling_back(self, bad: int, to: int | None, *, by_board: bool) -> Handle:
        handle = await self.start_rollback(bad, to)
        if by_board:
            status = await self._env.until_step(handle, "board", "waiting")
            for person in BOARD:
                envelope = await self._env.author.rollback_approval(person, bad, status)
                await handle.execute_update("decide", {"approval": envelope.model_dump(mode="json")})
        return handle

    # --- by hand, past the runbook

    async def load_out_of_band(self, asked: Asked, how: str) -> None:
        """Call load as a person does who thinks they need no runbook; it must be refused."""
        match how:
            case "without a lease":
                await self._refused(asked, LeaseLostError, token=1)
            case "with a stale token":
                await self._refused(asked, LeaseLostError, token=await self._stale_token())
            case _:
                members = BOARD[:1] if how == "with one approval" else ()
                update_id = str(uuid4())
                request = LeaseRequest(update_id=update_id, kind=Kind.UPDATE, workflow_id="by hand")
                lease = await self._env.service.acquire_lease(request, f"{ENVIRONMENT}/{update_id}/lease")
                try:
                    await self._refused(
                        asked, NotApprovedError, token=lease.fencing_token, update_id=update_id, members=members
                    )
                finally:
                    await self._give_back(update_id, lease.fencing_token)

    async def _refused(
        self,
        asked: Asked,
        error: type[ContentError],
        *,
        token: int,
        update_id: str | None = None,
        members: tuple[str, ...] = BOARD,
    ) -> None:
        update_id = update_id or str(uuid4())
        releases = await self._env.service.releases()
        request = LoadRequest(
            update_id=update_id,
            kind=Kind.UPDATE,
            checksum=asked.proposal.checksum,
            rings=("default",),
            expected_generation=max((release.generation for release in releases), default=0),
            fencing_token=token,
            change_request=asked.proposal.change_request,
            approvals=tuple(self._env.author.approval(person, asked.proposal, asked.status) for person in members),
            test_evidence=asked.status.evidence,
            reason="past the runbook",
            workflow=WorkflowRef(workflow_id="by hand", run_id=""),
        )
        with pytest.raises(error):
            await self._env.service.load(request, f"{ENVIRONMENT}/{update_id}/load")

    async def _stale_token(self) -> int:
        """A fencing token that was given back."""
        update_id = str(uuid4())
        request = LeaseRequest(update_id=update_id, kind=Kind.UPDATE, workflow_id="by hand")
        lease = await self._env.service.acquire_lease(request, f"{ENVIRONMENT}/{update_id}/lease")
        await self._give_back(update_id, lease.fencing_token)
        return lease.fencing_token

    async def _give_back(self, update_id: str, token: int) -> None:
        release = LeaseRelease(update_id=update_id, fencing_token=token)
        await self._env.service.release_lease(release, f"{ENVIRONMENT}/{update_id}/lease")

    # --- interventions

    async def delete_cached(self) -> None:
        """`redis-cli DEL constitution:current`."""
        async with self._redis() as client:
            await client.delete(self._env.names.redis_current())

    async def flush_cache(self) -> None:
        """Delete every key of the namespace, the floor too."""
        async with self._redis() as client:
            keys = [key async for key in client.scan_iter(match=f"{self._env.names.namespace}:*")]
            if keys:
                await client.delete(*keys)

    async def forge_cached(self, how: str) -> None:
        """Write to Redis as somebody without a key."""
        key = self._env.names.redis_current()
        async with self._redis() as client:
            match how:
                case "floor":
                    await client.set(self._env.names.redis_floor(), secrets.randbelow(10**9) + 10**6)
                case "garbage":
                    await client.set(key, json.dumps({"generation": 99, "by": secrets.token_hex(8)}))
                case _:
                    assert how == "generation", how
                    said = json.loads(await client.get(key) or b"{}")
                    said["generation"] = said.get("generation", 0) + secrets.randbelow(10**6) + 1
                    await client.set(key, json.dumps(said))

    def _redis(self) -> "redis.asyncio.Redis":
        return redis.asyncio.from_url(self._env.settings["REDIS_URL"], socket_timeout=10)

    async def kill(self, process: str) -> None:
        """Kill -9, and start again."""
        await self._env.kill(process)
        await self._env.restart(process)

    async def forget_offsets(self, process: str) -> None:
        """Stop a consumer, delete its group with all offsets, start it again."""
        env = self._env
        await asyncio.to_thread(env.stack.kill, process, signal.SIGTERM)

        async def gone() -> bool:
            states = {status.name: status.state for status in await asyncio.to_thread(env.stack.status)}
            return states[process] == "dead"

        await eventually(gone, SOON)
        settings = {name: value for name, value in env.settings.items() if name.startswith("KAFKA_")}
        admin = AdminClient(client_configuration(settings))
        group = env.names.group("siem" if process == "siem-forwarder" else process)

        def delete() -> bool:
            try:
                admin.delete_consumer_groups([group])[group].result(10)
            except KafkaException as error:  # its last member has not left yet
                if error.args[0].name() == "GROUP_ID_NOT_FOUND":
                    return True
                raise AssertionError(str(error)) from error
            return True

        await eventually(lambda: asyncio.to_thread(delete), SOON)
        await env.restart(process)
