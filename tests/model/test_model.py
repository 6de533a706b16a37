"""Model check: programs of releases, faults and interventions; the real services do what the model says.

Here a few short programs, always the same ones. `make model` draws many and longer ones, shrinks what fails, and
leaves it in var/model/failing.program; `make model PROGRAM=FILE` runs such a file again.
"""

import ast
import asyncio
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from deploy.embedded.stack_directory import CHECKOUT
from tests.model.machine import Runbook
from tests.model.runs import Programs

IS_LONG = settings.get_current_profile_name() == "model"  # pytest --hypothesis-profile model
SHORT = settings(
    max_examples=2,  # the first is always the simplest: an environment without a release, whose cached value is deleted
    stateful_step_count=8,
    deadline=None,
    database=None,
    phases=(Phase.generate,),  # shrinking is for `make model`: there is time
    suppress_health_check=list(HealthCheck),
)
# Not derandomize: that would draw other programs after every edit of the machine. With this seed the second program
# stops a release that is live, lets updates wait, has one terminated while it is told, and rolls back under a fault.
SEED = 348
WRITTEN = sorted((CHECKOUT / "tests" / "model" / "programs").glob("*.program"))  # each failed once
GIVEN = [Path(name) for name in os.environ.get("PROGRAM", "").split()]


def _machine(programs: Programs) -> type[Runbook]:
    return type("Runbook", (Runbook,), {"programs": programs})


@pytest.mark.timeout(0 if IS_LONG else 300)
@pytest.mark.slow
async def test_the_world_is_as_the_model_says(programs: Programs) -> None:
    machine = _machine(programs)
    if not IS_LONG:
        seed(SEED)(machine)
    await asyncio.to_thread(run_state_machine_as_test, machine, settings=settings() if IS_LONG else SHORT)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("program", GIVEN or WRITTEN, ids=lambda program: program.stem)
async def test_a_written_program(programs: Programs, program: Path) -> None:
    await asyncio.to_thread(repeat, _machine(programs), program)


def repeat(machine: type[Runbook], program: Path) -> None:
    """Run the rules of a file, one a line, as they were written."""
    state = machine()
    try:
        for line in program.read_text().partition("#")[0].splitlines():
            call = ast.parse(line, mode="eval").body
            assert isinstance(call, ast.Call)
            assert isinstance(call.func, ast.Name)
            arguments = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
            getattr(state, call.func.id)(**arguments)
            state.the_world_is_as_the_model_says()
    finally:
        state.teardown()
