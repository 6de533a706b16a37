"""Histories of real runs replay with the code as it is: what runs in production today may be finished by it."""

import json
import re
from typing import Any

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer
from temporalio.workflow import NondeterminismError

from tests.replay.record import HISTORIES, texts
from tests.replay.reordered import GateBeforeSignatures
from workflows.conversion import data_converter
from workflows.guard import ConstitutionGuard
from workflows.one_argument import OneArgument
from workflows.rollback import ConstitutionRollback
from workflows.sandbox import workflow_runner
from workflows.update import ConstitutionUpdate

NAMES = sorted(path.stem for path in HISTORIES.glob("*.json"))

# What would make a history a secret, or a description of somebody's machine.
SECRET = re.compile(r"BEGIN [A-Z ]*PRIVATE KEY( BLOCK)?-----|xox[abp]-|://[^/\s:@]+:[^/\s@]+@")
FOLDER = re.compile(r"(?<![\w.:/-])/(?:home|root|work|tmp|usr|opt|mnt|Users|builds?)/")


def stored(name: str) -> dict[str, Any]:
    history: dict[str, Any] = json.loads((HISTORIES / f"{name}.json").read_text())
    return history


def started(history: dict[str, Any]) -> dict[str, Any]:
    attributes: dict[str, Any] = history["events"][0]["workflowExecutionStartedEventAttributes"]
    return attributes


def replayable(name: str) -> WorkflowHistory:
    history = stored(name)
    return WorkflowHistory.from_json(started(history)["workflowId"], history)


def replayer(*workflows: type) -> Replayer:
    return Replayer(
        workflows=workflows,
        namespace="default",  # where they were recorded: a run compares its parent's namespace with its own
        workflow_runner=workflow_runner(),
        data_converter=data_converter,
        interceptors=[OneArgument()],
    )


@pytest.mark.parametrize("name", NAMES)
async def test_a_stored_history_replays(name: str) -> None:
    await replayer(ConstitutionUpdate, ConstitutionRollback, ConstitutionGuard).replay_workflow(replayable(name))


def test_every_workflow_and_every_outcome_is_among_them() -> None:
    histories = [stored(name) for name in NAMES]
    found = {(started(h)["workflowType"]["name"], h["events"][-1]["eventType"]) for h in histories}
    failed, completed = "EVENT_TYPE_WORKFLOW_EXECUTION_FAILED", "EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED"
    assert found >= {
        ("ConstitutionUpdate", completed),
        ("ConstitutionUpdate", failed),
        ("ConstitutionUpdate", "EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED"),
        ("ConstitutionRollback", completed),
        ("ConstitutionGuard", completed),
    }
    last = [h["events"][-1].get("workflowExecutionFailedEventAttributes") for h in histories]
    types = {said["failure"]["applicationFailureInfo"]["type"] for said in last if said}
    assert types == {"Rejected", "RolledBack"}


@pytest.mark.parametrize("name", NAMES)
def test_a_stored_history_holds_no_secret_and_no_folder_of_a_machine(name: str) -> None:
    for text in texts(stored(name)):
        assert SECRET.search(text) is None, text[:300]
        assert FOLDER.search(text) is None, text[:300]


@pytest.mark.parametrize("name", ["update-completed", "update-rolled-back", "first-release-completed"])
async def test_a_reordered_step_is_caught(name: str) -> None:
    with pytest.raises(NondeterminismError, match="TMPRL1100"):
        await replayer(GateBeforeSignatures).replay_workflow(replayable(name))


async def test_the_class_with_the_reordered_step_is_otherwise_the_same() -> None:
    """It replays a run that ended before the step: it is caught for its order, and for nothing else."""
    await replayer(GateBeforeSignatures).replay_workflow(replayable("update-rejected-input"))
