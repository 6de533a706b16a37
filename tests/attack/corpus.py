"""What somebody who reads Temporal knows: every input and result of the runs, and what mutations draw from it."""

import importlib
import inspect
import json
import pkgutil
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from temporalio.api.common.v1 import Payloads
from temporalio.client import Client

import activities

MARK: Final = "http://attacker.example/mark"
"""In every invented text: where it turns up as a link, somebody else's word was told as ours."""

HOSTILE: Final[tuple[Any, ...]] = (
    None,
    True,
    0,
    -1,
    10**9,
    2**63,
    1e308,
    "",
    MARK,
    f"<{MARK}|approved by alva> *1.0.0 is live*",
    "../../etc/passwd",
    "sha256:" + "0" * 64,
    "00000000-0000-4000-8000-000000000000",
    "x" * 70_000,
    [],
    {},
    ["alva", "bruno"],
)


@dataclass
class Corpus:
    """Inputs and results, by the name of what they were given to.

    Args:
        activities: activity type -> its inputs, as JSON values.
        results: activity type -> its results.
        starts: workflow type -> its inputs.
        messages: signal or update -> its arguments.
        fields: name of a field -> every value that was ever seen in it.
    """

    activities: dict[str, list[Any]] = field(default_factory=dict)
    results: dict[str, list[Any]] = field(default_factory=dict)
    starts: dict[str, list[Any]] = field(default_factory=dict)
    messages: dict[str, list[Any]] = field(default_factory=dict)
    fields: dict[str, list[Any]] = field(default_factory=dict)

    def keep(self, where: dict[str, list[Any]], name: str, values: Iterable[Any]) -> None:
        """Remember values, each once."""
        known = where.setdefault(name, [])
        for value in values:
            if value not in known:
                known.append(value)
                self._keep_fields(value)

    def _keep_fields(self, value: Any) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                seen = self.fields.setdefault(name, [])
                if inner not in seen:
                    seen.append(inner)
                self._keep_fields(inner)
        elif isinstance(value, list):
            for inner in value:
                self._keep_fields(inner)

    def input_of(self, dice: random.Random, activity: str) -> Any:
        """Return an input that an activity got in a real run, else any other one's; mutated."""
        known = self.activities.get(activity) or self.activities[dice.choice(sorted(self.activities))]
        return self.mutated(dice, dice.choice(known))

    def mutated(self, dice: random.Random, value: Any) -> Any:
        """Return a value of which some fields are another run's, another release's, or hostile; at times unchanged."""
        made = json.loads(json.dumps(value))
        if not isinstance(made, dict) or not made:
            return dice.choice(HOSTILE) if dice.random() < 0.5 else made
        for _ in range(dice.choice((0, 1, 1, 1, 2, 3))):
            self._change(dice, made)
        return made

    def _change(self, dice: random.Random, value: dict[str, Any]) -> None:
        places = list(_places(value))
        if not places:
            return
        holder, name = dice.choice(places)
        kind = dice.random()
        known = self.fields.get(name, [])
        if kind < 0.65 and known:
            holder[name] = json.loads(json.dumps(dice.choice(known)))
        elif kind < 0.75 and isinstance(holder[name], int) and not isinstance(holder[name], bool):
            holder[name] += dice.choice((-1, 1))
        elif kind < 0.85:
            holder.pop(name)
        elif kind < 0.9:
            holder["unknown"] = MARK
        else:
            holder[name] = dice.choice(HOSTILE)


def registered() -> list[str]:
    """The name of every activity that the product has."""
    found = set()
    for module in pkgutil.walk_packages(activities.__path__, "activities."):
        for _, holder in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            for _, method in inspect.getmembers(holder, inspect.isfunction):
                definition = getattr(method, "__temporal_activity_definition", None)
                if definition is not None:
                    found.add(str(definition.name))
    return sorted(found)


def _places(value: Any) -> Iterable[tuple[dict[str, Any], str]]:
    """Every field of every object in a value."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield value, name
            yield from _places(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _places(inner)


async def corpus_of(client: Client, task_queue: str) -> Corpus:
    """Read every history of a deployment."""
    corpus = Corpus()
    async for run in client.list_workflows(f"TaskQueue = '{task_queue}'"):
        handle = client.get_workflow_handle(run.id, run_id=run.run_id)
        scheduled: dict[int, str] = {}
        async for event in handle.fetch_history_events():
            started = event.workflow_execution_started_event_attributes
            asked = event.activity_task_scheduled_event_attributes
            done = event.activity_task_completed_event_attributes
            accepted = event.workflow_execution_update_accepted_event_attributes
            signaled = event.workflow_execution_signaled_event_attributes
            if started.workflow_type.name:
                corpus.keep(corpus.starts, started.workflow_type.name, values_of(started.input))
            if asked.activity_type.name:
                scheduled[event.event_id] = asked.activity_type.name
                corpus.keep(corpus.activities, asked.activity_type.name, values_of(asked.input))
            if done.scheduled_event_id in scheduled:
                corpus.keep(corpus.results, scheduled[done.scheduled_event_id], values_of(done.result))
            if accepted.accepted_request.input.name:
                given = accepted.accepted_request.input
                corpus.keep(corpus.messages, given.name, values_of(given.args))
            if signaled.signal_name:
                corpus.keep(corpus.messages, signaled.signal_name, values_of(signaled.input))
    return corpus


def values_of(payloads: Payloads) -> list[Any]:
    """The JSON values among payloads."""
    return [json.loads(one.data) for one in payloads.payloads if one.metadata.get("encoding") == b"json/plain"]
