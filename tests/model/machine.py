"""The state machine: rules that act on a real environment and tell the model what must come of it.

After each rule everything comes to rest, and the real world is compared with the model. Rules take names and small
numbers only, so that a failing program can be read, typed and run again; what a rule does depends on nothing else
than the rules before it.
"""

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.helpers import eventually
from tests.model.acts import Acts, Asked
from tests.model.reference import Document, Made, Model
from tests.model.runs import Programs

REST = timedelta(seconds=60)  # from the end of a rule to a world at rest, on a machine that others use too
FAULTS = (
    "none",
    "cache flushed at the load",
    "answer of the load lost",
    "answer of Slack lost",
    "stale load meanwhile",
    "terminated while it is told",
    "service killed before the load",
    "service killed after the load",
    "target killed at the load",
    "worker killed after the load",
)
WHEN_LIVE = ("abort", "cancel", "terminate", "rollback", "terminated undo", "dead target")
PROCESSES = ("constitution-service", "worker", "assessor", "policy-engine-1", "orchestrator-2", "siem-forwarder")
CONSUMERS = ("siem-forwarder", "policy-engine-2", "orchestrator-1")
MOST = 3  # updates that wait for the board at once

Move = Callable[..., Coroutine[Any, Any, None]]


def _on_the_loop(move: Move) -> Callable[..., None]:
    """Run a rule's body on the environment's loop, and keep it in the program."""
    shape = inspect.signature(move)

    @functools.wraps(move)
    def run(self: "Runbook", *args: Any, **kwargs: Any) -> None:
        arguments = dict(shape.bind(self, *args, **kwargs).arguments)
        del arguments["self"]
        said = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        self.programs.run(f"{move.__name__}({said})", move(self, **arguments))

    return run


class Runbook(RuleBasedStateMachine):
    """Releases, rollbacks, faults and interventions on one environment."""

    programs: ClassVar[Programs]

    def __init__(self) -> None:
        super().__init__()
        self.programs.forget_program()
        self.model: Model | None = None
        self.acts: Acts
        self.waiting: list[Asked] = []

    # --- beginning and end

    @initialize(settled=st.booleans())
    @_on_the_loop
    async def begin(self, settled: bool) -> None:
        """Begin where an update was confirmed last, whatever came before it, or where nothing was ever live."""
        env, sight = await self.programs.env(anew=not settled)
        self.acts = Acts(env)
        await sight.begin()
        self.model = Model(await sight.history(), await asyncio.to_thread(sight.change_log))
        while settled and not self._is_settled():
            await self._completed(await self._ask(), "none")

    def _is_settled(self) -> bool:
        return [(made.kind, made.standings) for made in self.known.releases[-1:]] == [("update", ["confirmed"])]

    @property
    def known(self) -> Model:
        """The model."""
        assert self.model is not None
        return self.model

    def teardown(self) -> None:
        """Stop what waits, and look once more; the next program goes on in the same environment."""
        if self.model is None or self.programs.is_spoiled:
            self.programs.ended()
            return
        try:
            for _ in range(len(self.waiting)):
                self.stopped_while_waiting(which=0, how="abort")
            self.the_world_is_as_the_model_says()
        finally:
            self.programs.ended()

    @invariant()
    def the_world_is_as_the_model_says(self) -> None:
        """Wait until everything is at rest, and compare."""
        if self.model is not None:
            self.programs.wait(self._compare())

    async def _compare(self) -> None:
        waiting = {asked.handle.id for asked in self.waiting}
        _, sight = await self.programs.env()

        async def same() -> bool:
            found = await sight.differences(self.known, waiting)
            assert not found, "\n".join(found)
            return True

        await eventually(same, REST)

    # --- updates

    @rule()
    @_on_the_loop
    async def update_asked_for(self) -> None:
        """An update waits for the board from now on, whatever else happens meanwhile."""
        if len(self.waiting) < MOST:
            self.waiting.append(await self._ask())

    @rule(which=st.integers(0, MOST - 1), fault=st.sampled_from(FAULTS))
    @_on_the_loop
    async def approved(self, which: int, fault: str) -> None:
        """Two approve: it is completed, if it still follows what is live, whatever else goes wrong."""
        asked = await self._take(which)
        if self.known.may_go_live(_document(asked)):
            await self._completed(asked, fault)
        else:
            await self.acts.approve(asked)
            await self._rejected(asked)

    @rule(which=st.integers(0, MOST - 1))
    @_on_the_loop
    async def held(self, which: int) -> None:
        """Held by an operator after it went live: it is completed when an operator resumes it, and by nobody's word."""
        asked = await self._take(which)
        if not self.known.may_go_live(_document(asked)):
            await self.acts.approve(asked)
            await self._rejected(asked)
            return
        end = await self.acts.hold_and_resume(asked)
        assert end.type is None, end
        self.known.completed(_document(asked))

    @rule(which=st.integers(0, MOST - 1))
    @_on_the_loop
    async def denied(self, which: int) -> None:
        """One denial rejects it."""
        asked = await self._take(which)
        await self.acts.decide(asked, "alva")
        await self.acts.decide(asked, "bruno", decision="deny")
        await self._rejected(asked)

    @rule(which=st.integers(0, MOST - 1), how=st.sampled_from(("abort", "cancel", "terminate")))
    @_on_the_loop
    async def stopped_while_waiting(self, which: int, how: str) -> None:
        """Stopped before anything is live: nothing ever was."""
        asked = await self._take(which)
        await self.acts.stop(asked, how)
        if how == "terminate":
            end = await self.acts.guarded_end(asked.handle)
            assert "nothing had been published" in end.result, end
            self.known.rejected(by_guard=True)
        else:
            await self._rejected(asked)

    @rule(which=st.integers(0, MOST - 1), how=st.sampled_from(WHEN_LIVE))
    @_on_the_loop
    async def stopped_when_live(self, which: int, how: str) -> None:
        """Stopped after it went live and before it is confirmed: what was live before is live again."""
        asked = await self._take(which)
        if not self.known.may_go_live(_document(asked)):
            await self.acts.approve(asked)
            await self._rejected(asked)
            return
        end = await self.acts.stop_in_sync(asked, how)
        assert end.type == (None if how == "terminate" else "RolledBack"), end
        self.known.undone(_document(asked))

    @rule(which=st.integers(0, MOST - 1), how=st.sampled_from(("too late", "for a moment")))
    @_on_the_loop
    async def approved_in_vain(self, which: int, how: str) -> None:
        """Approvals that have expired count for nothing."""
        asked = await self._take(which)
        if how == "too late":
            await self.acts.decide_too_late(asked)
            self.known.audited["decide.refused"] += 1
            self.waiting.append(asked)
        else:
            await self.acts.approve_for_a_moment(asked)
            await self._rejected(asked)

    @rule(which=st.integers(0, MOST - 1))
    @_on_the_loop
    async def started_by_two(self, which: int) -> None:
        """A second operator starts the same change request, and another one at once: the second is refused."""
        first = await self._take(which)
        await self.acts.start_again(first)
        second = await self._ask()
        if not self.known.may_go_live(_document(first)):
            await self.acts.approve(first)
            await self._rejected(first)
            await self._completed(second, "none")
            return
        end, refused = await self.acts.race(first, second)
        assert end.type is None, end
        assert refused.type == "Rejected", refused
        self.known.rejected()
        self.known.completed(_document(first))

    @rule(which=st.integers(0, MOST - 1))
    @_on_the_loop
    async def guard_terminated(self, which: int) -> None:
        """The guard of a waiting update is terminated: its parent starts it again."""
        asked = await self._take(which)
        await self.acts.terminate_guard(asked)
        self.waiting.append(asked)

    # --- rollbacks by hand

    @rule(
        to=st.integers(-1, 2),
        how=st.sampled_from(("plain", "started twice", "service killed after the load", "terminated")),
    )
    @_on_the_loop
    async def rolled_back(self, to: int, how: str) -> None:
        """The newest release is undone by hand, an update, a rollback or a withdrawal; -1: back to the default."""
        model = self.known
        if not model.releases:
            return
        bad = model.releases[-1]
        choices = model.restorable(bad)
        chosen = choices[to % len(choices)] if to >= 0 and choices else None
        restored: Made | None = chosen or model.restored_by_default(bad)
        if bad.checksum is None and restored is None:
            assert (await self.acts.roll_back_nothing(bad.generation)).type == "Rejected"
            model.rollback_rejected()
            return
        end = await self.acts.roll_back(
            bad.generation,
            chosen.generation if chosen else None,
            by_board=not model.authorised_in_advance(bad, restored),
            how=how,
        )
        assert end.type is None, end
        model.rolled_back(restored)

    # --- interventions and accidents

    @rule()
    @_on_the_loop
    async def cache_deleted(self) -> None:
        """`redis-cli DEL constitution:current`: it comes back."""
        await self.acts.delete_cached()

    @rule()
    @_on_the_loop
    async def cache_flushed(self) -> None:
        """All keys of the namespace are gone, the floor too: what is live comes back."""
        await self.acts.flush_cache()

    @rule(how=st.sampled_from(("floor", "garbage", "generation")))
    @_on_the_loop
    async def cache_forged(self, how: str) -> None:
        """Somebody without a key writes to Redis: it is put right, and told to the SIEM where anybody could see it."""
        await self.acts.forge_cached(how)
        if how != "floor" and self.known.releases:
            self.known.audited["cache.forged"] += 1

    @rule(process=st.sampled_from(PROCESSES))
    @_on_the_loop
    async def killed(self, process: str) -> None:
        """SIGKILL, while nothing or only what waits is under way."""
        await self.acts.kill(process)

    @rule(process=st.sampled_from(CONSUMERS))
    @_on_the_loop
    async def offsets_deleted(self, process: str) -> None:
        """A consumer's group and its offsets are deleted: it reads again, and nothing is lost."""
        await self.acts.forget_offsets(process)

    @rule(
        which=st.integers(0, MOST - 1),
        how=st.sampled_from(("without a lease", "with a stale token", "without approvals", "with one approval")),
    )
    @_on_the_loop
    async def loaded_out_of_band(self, which: int, how: str) -> None:
        """A person with a key calls load past the runbook: refused, and audited."""
        asked = await self._take(which)
        self.waiting.append(asked)
        if how.startswith("with") and "approval" in how and not self.known.may_go_live(_document(asked)):
            return  # refused for another reason
        await self.acts.load_out_of_band(asked, how)
        self.known.audited["load.refused"] += 1

    # --- what rules share

    async def _ask(self) -> Asked:
        return await self.acts.ask()

    async def _take(self, which: int) -> Asked:
        """One of the waiting updates; where none waits, one is asked for."""
        return self.waiting.pop(which % len(self.waiting)) if self.waiting else await self._ask()

    async def _completed(self, asked: Asked, fault: str) -> None:
        await self.acts.publish(asked, fault)
        terminated = fault == "terminated while it is told"
        end = await (self.acts.guarded_end(asked.handle) if terminated else self.acts.end(asked))
        assert end.type is None, end
        self.known.completed(_document(asked), by_guard=terminated)
        if fault == "stale load meanwhile":
            self.known.audited["load.refused"] += 1

    async def _rejected(self, asked: Asked) -> None:
        end = await self.acts.end(asked)
        assert end.type == "Rejected", end
        self.known.rejected()


def _document(asked: Asked) -> Document:
    proposal = asked.proposal
    return Document(
        checksum=proposal.checksum,
        version=tuple(int(part) for part in proposal.version.split(".")),
        follows=proposal.previous.checksum if proposal.previous else None,
    )
