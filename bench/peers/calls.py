"""The calls that take an approved update to *live and proved*, in the runbook's order.

Each is an activity method of ours, run in Temporal's own environment for activities without a server
(``temporalio.testing.ActivityEnvironment``), so every check, request and write in it is the product's. Arguments and
results are JSON, as every durable engine keeps them.
"""

import dataclasses
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, get_type_hints

from temporalio.testing import ActivityEnvironment

from constitution.model import Model

CALLS: Final = (
    "check_decision",
    "stage_artifact",
    "validate_signature",
    "recheck",
    "acquire_lease",
    "post_progress",
    "load_release",
    "prove_published",
)
"""Of an update whose strategy does not watch, from the board's last approval to the proof."""

Json = dict[str, Any]
Step = Callable[[str, Json, Json], Awaitable[Json]]
"""One call: its name, its argument, and of which run it is."""


class Given(Model):
    """An update that waits for its last approval, as its run's history tells it.

    Args:
        run: ``workflow_id`` and ``run_id``.
        plan: result of ``resolve_update``.
        evidence: digest of what the gate and the prediction stored.
        first: envelope of the approval that was accepted.
        last: envelope of the one that nobody has seen yet.
        posted: result of the first ``post_progress``.
    """

    run: Json
    plan: Json
    evidence: str
    first: Json
    last: Json
    posted: Json


class Activities:
    """Activity methods by name.

    Args:
        methods: bound methods, as a worker registers them.
    """

    def __init__(self, methods: Iterable[Callable[..., Any]]) -> None:
        self._methods: Mapping[str, Callable[..., Any]] = {method.__name__: method for method in methods}

    async def call(self, name: str, argument: Json, run: Json) -> Json:
        """Run one and return its result as JSON."""
        method = self._methods[name]
        [model] = [hint for parameter, hint in get_type_hints(method).items() if parameter != "return"]
        environment = ActivityEnvironment()
        environment.info = dataclasses.replace(
            environment.info, workflow_id=run["workflow_id"], workflow_run_id=run["run_id"]
        )
        result = await environment.run(method, model.model_validate(argument))
        said: Json = {} if result is None else result.model_dump(mode="json")
        return said


async def go_live(step: Step, given: Given) -> Json:
    """Take an approved update live and prove it; return what was published, the proof, the plan and the lease."""
    plan, run, envelopes = given.plan, given.run, [given.first, given.last]
    decision = {"update": plan, "evidence": given.evidence, "envelope": given.last, "seen": [given.first]}
    await step("check_decision", decision, run)
    await step("stage_artifact", {"update": plan, "document": None, "signatures": []}, run)
    await step("validate_signature", plan, run)
    decided = {"evidence": given.evidence, "envelopes": envelopes}
    plan = await step("recheck", {"update": plan, **decided}, run)
    environment, update_id = plan["environment"], plan["update_id"]
    leased = {
        "environment": environment,
        "update_id": update_id,
        "kind": plan["kind"],
        "workflow_id": run["workflow_id"],
    }
    token = (await step("acquire_lease", leased, run))["fencing_token"]
    at = {"ts": given.posted["ts"], "channel_id": given.posted["channel_id"]}
    await step("post_progress", {"update": plan, **at, "lines": ["is being published"]}, run)
    expected = {"fencing_token": token, "expected_generation": plan["expected_generation"]}
    published = await step("load_release", {"update": plan, **decided, **expected}, run)
    kept = ("generation", "checksum", "event_id", "effective_at")
    of_release = {name: published[name] for name in kept}
    proved = {"environment": environment, "rings": plan["rings"], **of_release}
    proof = await step("prove_published", proved, run)
    return {"plan": plan, "published": published, "proof": proof, "fencing_token": token}


async def confirm(step: Step, run: Json, live: Json, reason: str) -> None:
    """Do what follows the proof, so that the next release finds a confirmed one and no lease."""
    environment, update_id = live["plan"]["environment"], live["plan"]["update_id"]
    generation, token = live["published"]["generation"], live["fencing_token"]
    await step("sync_targets", {"environment": environment, "generation": generation}, run)
    standing = {"generation": generation, "standing": "confirmed", "reason": reason}
    leased = {"environment": environment, "update_id": update_id, "fencing_token": token}
    await step("record_standing", {**standing, **leased}, run)
    await step("release_lease", leased, run)
