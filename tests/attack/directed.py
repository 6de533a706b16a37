"""Acts that were seen to succeed once, on an earlier product: each is tried in every attack, beside the random ones."""

import base64
import re
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from temporalio.client import WorkflowHandle

from constitution.release import Release
from tests.attack.acts import Attacker
from tests.attack.corpus import MARK, values_of
from tests.world.environment import RunningEnvironment


@dataclass(frozen=True)
class Approved:
    """An update that two of the board approved, as its history tells: all that a load takes.

    Args:
        plan: of the update.
        evidence: digest of the gate's evidence.
        envelopes: its signed decisions.
    """

    plan: dict[str, Any]
    evidence: str
    envelopes: list[Any]

    @classmethod
    def known(cls, attacker: Attacker, update_id: str) -> "Approved":
        """Return what the histories tell of it."""
        plan = next(p for p in attacker.corpus.results["resolve_update"] if p["update_id"] == update_id)
        envelopes = [
            message["approval"]
            for message in attacker.corpus.messages["decide"]
            if update_id in base64.b64decode(message["approval"]["payload"]).decode()
        ]
        assert len(envelopes) >= 2, "nobody has approved it"
        asked = attacker.corpus.activities["check_decision"]
        evidence = next(value["evidence"] for value in asked if value.get("update", {}).get("update_id") == update_id)
        return cls(plan, str(evidence), envelopes)


async def at_rest(env: RunningEnvironment, attacker: Attacker, ended: str, early: str) -> None:
    """Try, while nothing is under way, what no signature allows.

    Args:
        env: at rest.
        attacker: whose knowledge and whose captured runs these acts use.
        ended: id of an update that two of the board approved, and that was aborted; its time has come.
        early: id of an update that two of the board approved, which waits for its time.
    """
    live = (await env.service.releases())[0]
    workflow_id = f"{env.names.namespace}/captured/directed"
    before = await env.service.release(live.previous_generation or 0)
    await _ask_from_elsewhere(attacker)
    await _undo_what_is_confirmed(attacker, live, before, workflow_id)
    await _load_what_nobody_may(attacker, live, workflow_id, Approved.known(attacker, ended), early)
    await _tell_what_is_not(attacker, live, workflow_id, Approved.known(attacker, early))


async def _ask_from_elsewhere(attacker: Attacker) -> None:
    """Ask for each activity as a run of ours has asked for it, from a workflow that is none of ours."""
    known = attacker.corpus.activities
    await attacker.foreign(*(attacker.task(activity, inputs[0]) for activity, inputs in sorted(known.items())))


async def _undo_what_is_confirmed(attacker: Attacker, live: Release, before: Release, workflow_id: str) -> None:
    """Roll back what is live and confirmed: by a rollback of its own update, and by one that nobody ordered."""
    where = {"environment": live.environment, "workflow_id": workflow_id}
    plan = next(p for p in attacker.corpus.results["plan_rollback"] if p["kind"] == "rollback" and not p["already"])
    asked: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("fence_and_look", live.update_id, {}),
        ("acquire_lease", live.update_id, {"kind": "rollback", "undoes": live.generation}),
        ("acquire_lease", str(uuid4()), {"kind": "rollback", "undoes": live.generation}),
    )
    for activity, update_id, more in asked:
        (answer,) = await attacker.captured(attacker.task(activity, where | {"update_id": update_id} | more))
        token = _token(answer)
        undo = plan | {
            "update_id": update_id,
            "bad_generation": live.generation,
            "expected_generation": live.generation,
            "checksum": before.checksum,
            "already": None,
        }
        restore = {"envelopes": [], "fencing_token": token, "reason": MARK, "workflow_id": workflow_id, "run_id": "r"}
        await attacker.captured(attacker.task("load_restored", {"plan": undo} | restore))
        back = {"environment": live.environment, "update_id": update_id, "fencing_token": token}
        await attacker.captured(attacker.task("release_lease", back))


async def _load_what_nobody_may(
    attacker: Attacker, live: Release, workflow_id: str, ended: Approved, early: str
) -> None:
    """Load what was aborted, and what has still to wait; and take back, with such a lease, what is live."""
    where = {"environment": live.environment}
    waiting = Approved.known(attacker, early)
    for mine in (ended, waiting):
        update_id = mine.plan["update_id"]
        asked = where | {"update_id": update_id, "kind": "update", "workflow_id": workflow_id}
        (answer,) = await attacker.captured(attacker.task("acquire_lease", asked))
        token = _token(answer)
        loads = [
            attacker.task(
                "load_release",
                {
                    "update": other.plan
                    | {"not_before": None, "strategy": other.plan["strategy"] | {"watch_seconds": 0}}
                    | change,
                    "evidence": other.evidence,
                    "envelopes": other.envelopes,
                    "fencing_token": token,
                    "expected_generation": live.generation,
                },
            )
            for other in (ended, waiting)
            for change in ({}, {"update_id": update_id}, {"update_id": str(uuid4())})
        ]
        standings = [
            attacker.task(
                "record_standing",
                where
                | {
                    "generation": live.generation,
                    "standing": standing,
                    "reason": MARK,
                    "update_id": update_id,
                    "fencing_token": token,
                },
            )
            for standing in ("withdrawn", "poisoned")
        ]
        await attacker.captured(*loads, *standings)
        back = where | {"update_id": update_id, "fencing_token": token}
        await attacker.captured(attacker.task("release_lease", back))
    for_nothing = where | {"update_id": str(uuid4()), "kind": "update", "workflow_id": workflow_id}
    await attacker.captured(attacker.task("acquire_lease", for_nothing))  # never given back: it ends by itself


async def _tell_what_is_not(attacker: Attacker, live: Release, workflow_id: str, waiting: Approved) -> None:
    """Announce, audit and archive what did not happen."""
    where = {"environment": live.environment}
    told = [
        attacker.task(
            "announce",
            where
            | {
                "key": f"{uuid4()}/{outcome}",
                "outcome": outcome,
                "version": "9.9.9",
                "generation": generation,
                "summary": f"<{MARK}|look>",
                "reason": MARK,
                "approvers": ["alva", "bruno"],
                "workflow_id": workflow_id,
                "run_id": "r",
                "update_id": waiting.plan["update_id"],
            },
        )
        for outcome in ("completed", "rolled_back", "approved by the board")
        for generation in (live.generation, None)
    ]
    steered = [
        attacker.task(
            "accept_order",
            where
            | {
                "update_id": waiting.plan["update_id"],
                "order": order,
                "step": None,
                "envelope": None,
                "reason": "alva wants it",
            },
        )
        for order in ("hold", "resume", "retry")
    ]
    said = [
        attacker.task(
            "audit",
            {
                "id": f"{uuid4()}/said",
                "update_id": waiting.plan["update_id"],
                "workflow": {"workflow_id": workflow_id, "run_id": "r"},
                "activity": activity,
                "success": True,
                "actor": "alva",
                "message": "alva approved",
                "details": {},
            },
        )
        for activity in ("decision.approved", "change_request.denied", "release.loaded")
    ]
    kept = [
        attacker.task("archive_release", where | {"generation": generation, "outcome": outcome})
        for outcome in ("completed", "rolled_back", "withdrawn", "reviewed by the board", "../../x")
        for generation in (live.generation, live.generation + 1)
    ]
    progress = {"update": waiting.plan | {"channel": "#general"}, "lines": [f"<{MARK}|look>"]}
    await attacker.captured(*told, *steered, *said, *kept, attacker.task("post_progress", progress))


async def while_live(
    env: RunningEnvironment, attacker: Attacker, handle: WorkflowHandle[Any, Any], generation: int
) -> None:
    """Confirm a release that a target does not obey, with its own run's lease, which its history tells."""
    release = await env.service.release(generation)
    await attacker.captured(
        attacker.task(
            "record_standing",
            {
                "environment": release.environment,
                "generation": generation,
                "standing": "confirmed",
                "reason": "every target obeys",
                "update_id": release.update_id,
                "fencing_token": await _token_of(handle),
            },
        )
    )


async def _token_of(handle: WorkflowHandle[Any, Any]) -> int:
    """The fencing token of a run."""
    asked: set[int] = set()
    async for event in handle.fetch_history_events():
        if event.activity_task_scheduled_event_attributes.activity_type.name == "acquire_lease":
            asked.add(event.event_id)
        done = event.activity_task_completed_event_attributes
        if done.scheduled_event_id in asked:
            return int(values_of(done.result)[0]["fencing_token"])
    raise AssertionError(f"{handle.id} has not taken the lease")


def _token(answer: str) -> int:
    """The fencing token in an activity's answer; an invented one where it was refused."""
    found = re.search(r"'fencing_token': (\d+)", answer)
    return int(found.group(1)) if found else 1
