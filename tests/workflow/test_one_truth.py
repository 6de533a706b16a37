"""Every record of a run tells one truth, and a person is told why a run does not get on.

What each outcome must say is in ``truth.py``; ``outcomes.py`` asks it of every run of these tests, among them the
watched ones. Here are the kinds of an end that no other test has, and the cause of a step that is tried again.
"""

import re
from datetime import UTC, datetime, timedelta

import pytest

from constitution.messages import Outcome
from constitution.release import CurrentConstitution, Verdict
from deploy.embedded.stack_directory import CHECKOUT
from tests.helpers import eventually
from tests.workflow import outcomes, truth
from tests.world.environment import LEAF, RunningEnvironment

pytestmark = pytest.mark.timeout(300)


@pytest.mark.slow
async def test_a_confirmed_release_that_nothing_watched_and_that_is_undone_by_hand_still_says_what_it_was(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    handle, proposal = await env.approved()
    release = await outcomes.completed(env, handle, proposal)
    assert release.standings[-1].verdict is Verdict.NOT_WATCHED
    before = await env.status(handle)
    undo = await env.start_rollback(release.generation, "an auditor | found *it* <bad>")
    assert (await env.end(undo)).result["outcome"] == Outcome.ROLLED_BACK
    await outcomes.undone(env, proposal, live)
    assert await env.status(handle) == before, "what a closed run says is final"
    assert "was confirmed as generation" in before.outcome_detail
    confirmed = await env.service.release(release.generation)
    await truth.of_completed(env, handle, proposal, confirmed)


@pytest.mark.slow  # test_orders.py: an abort of what is live names who signed it
async def test_an_abort_names_itself_in_every_record(env: RunningEnvironment, live: CurrentConstitution) -> None:
    async with env.paused(LEAF):
        handle, proposal = await env.approved()
        await env.until_step(handle, "sync")
        await env.steer(handle, "abort", "a mistake")
        await env.until(handle, lambda s: s.rollback_workflow is not None)
        await env.go_on(LEAF)
        _, undoing = await outcomes.rolled_back(env, handle, proposal, live)
    bad = await env.service.release(undoing.rollback_of or 0)
    assert "aborted by olga: a mistake" in bad.standings[-1].reason


async def test_the_cause_of_a_step_that_is_tried_again_is_in_status(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    assert live.generation
    proposal = await env.author.propose()
    env.service_wire.cut()
    began = datetime.now(UTC)
    handle = await env.update(proposal)

    async def shown() -> bool:
        code, out, err = await env.constitution("status", handle.id, "--text")
        assert code == 0, err
        failing = [line for line in out.splitlines() if line.startswith("failing")]
        return any("resolve_update" in line and "failed:" in line for line in failing)

    await eventually(shown, timedelta(seconds=40))
    assert datetime.now(UTC) - began < timedelta(seconds=45), "long before all attempts are spent"
    env.service_wire.repair()
    await env.until_step(handle, "board", "waiting")
    _, out, _ = await env.constitution("status", handle.id, "--text")
    assert "failing" not in out
    await handle.execute_update("abort", {"reason": "seen"})
    await outcomes.rejected(env, handle, proposal, live, "aborted: seen")


async def test_the_documented_query_leaves_what_people_began(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    assert live.generation
    page = (CHECKOUT / "docs" / "operations.md").read_text()
    (query,) = re.findall(r"temporal workflow list --query '(WorkflowType IN [^']+)'", page)
    found = [run async for run in env.client.list_workflows(query)]
    mine = {run.workflow_type for run in found if run.id.startswith(env.names.namespace)}
    assert "ConstitutionUpdate" in mine
    assert mine <= {"ConstitutionUpdate", "ConstitutionRollback"}
    code, _, err = await env.temporal("workflow", "list", "--query", query, "--limit", "1")
    assert code == 0, err
