"""What tests of reconciliation ask of an environment: what the doctor finds, and what has been told about it."""

import json
from typing import Any

from tests.helpers import eventually
from tests.world.environment import SOON, RunningEnvironment

EVERY, CLOSED = 3, 3
"""Seconds between two rounds in a reconciled environment, and for which a run has been closed before it is judged."""


async def doctor(env: RunningEnvironment, *arguments: str) -> tuple[int, dict[str, Any]]:
    """What `constitution doctor` says, judging like the schedule."""
    code, out, err = await env.constitution("doctor", "--closed-seconds", str(CLOSED), "--json", *arguments)
    assert code in {0, 1}, err
    return code, json.loads(out)


async def finds(env: RunningEnvironment, code: str, where: str) -> dict[str, Any]:
    """Ask the doctor until it finds this; return the finding."""
    found: list[dict[str, Any]] = []

    async def found_it() -> bool:
        exit_code, report = await doctor(env)
        found[:] = [f for f in report["findings"] if f["code"] == code and where in f["where"]]
        assert found, report
        assert exit_code == 1
        return True

    await eventually(found_it, SOON)
    assert found[0]["command"]
    return found[0]


async def all_well(env: RunningEnvironment) -> None:
    """Ask the doctor until nothing is found."""

    async def well() -> bool:
        code, report = await doctor(env)
        assert (code, report["findings"]) == (0, []), report["findings"]
        return True

    await eventually(well, SOON)


def reconciled(env: RunningEnvironment, word: str) -> list[dict[str, Any]]:
    """Audit events of reconciliation that hold a word, each id once."""
    events = {event["metadata"]["uid"]: event for event in env.reads.audit()}
    return [e for e in events.values() if e["api"]["operation"].startswith("reconcile.") and word in e["message"]]
