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
from tests.workflow.town import LEAF, Town

pytestmark = pytest.mark.timeout(300)


async def test_a_release_that_nothing_watched_says_so(town: Town, live: CurrentConstitution) -> None:
    assert live.generation
    handle, proposal = await town.approved()
    release = await outcomes.completed(town, handle, proposal)
    assert release.standings[-1].verdict is Verdict.NOT_WATCHED


async def test_a_confirmed_release_that_is_undone_by_hand_still_says_what_it_was(
    town: Town, live: CurrentConstitution
) -> None:
    handle, proposal = await town.approved()
    release = await outcomes.completed(town, handle, proposal)
    before = await town.status(handle)
    undo = await town.start_run(
        "ConstitutionRollback", town.rollback_id(release.generation), {"reason": "an auditor | found *it* <bad>"}
    )
    assert (await town.end(undo)).result["outcome"] == Outcome.ROLLED_BACK
    await outcomes.undone(town, proposal, live)
    assert await town.status(handle) == before, "what a closed run says is final"
    assert "was confirmed as generation" in before.outcome_detail
    confirmed = await town.service.release(release.generation)
    await truth.of_completed(town, handle, proposal, confirmed)


async def test_an_abort_names_itself_in_every_record(town: Town, live: CurrentConstitution) -> None:
    async with town.paused(LEAF):
        handle, proposal = await town.approved()
        await town.until_step(handle, "sync")
        await handle.execute_update("abort", {"reason": "a mistake"})
        await town.until(handle, lambda s: s.rollback_workflow is not None)
        await town.go_on(LEAF)
        _, undoing = await outcomes.rolled_back(town, handle, proposal, live)
    bad = await town.service.release(undoing.rollback_of or 0)
    assert "aborted: a mistake" in bad.standings[-1].reason


async def test_the_cause_of_a_step_that_is_tried_again_is_in_status(town: Town, live: CurrentConstitution) -> None:
    assert live.generation
    proposal = await town.propose()
    town.service_wire.cut()
    began = datetime.now(UTC)
    handle = await town.update(proposal)

    async def shown() -> bool:
        code, out, err = await town.constitution("status", handle.id, "--text")
        assert code == 0, err
        failing = [line for line in out.splitlines() if line.startswith("failing")]
        return any("resolve_subject" in line and "failed:" in line for line in failing)

    await eventually(shown, timedelta(seconds=40))
    assert datetime.now(UTC) - began < timedelta(seconds=45), "long before all attempts are spent"
    town.service_wire.mend()
    await town.until_step(handle, "board", "waiting")
    _, out, _ = await town.constitution("status", handle.id, "--text")
    assert "failing" not in out
    await handle.execute_update("abort", {"reason": "seen"})
    await outcomes.rejected(town, handle, proposal, live, "aborted: seen")


async def test_the_documented_query_leaves_what_people_began(town: Town, live: CurrentConstitution) -> None:
    assert live.generation
    page = (CHECKOUT / "docs" / "operations.md").read_text()
    (query,) = re.findall(r"temporal workflow list --query '(WorkflowType IN [^']+)'", page)
    found = [run async for run in town.client.list_workflows(query)]
    mine = {run.workflow_type for run in found if run.id.startswith(town.names.namespace)}
    assert "ConstitutionUpdate" in mine
    assert mine <= {"ConstitutionUpdate", "ConstitutionRollback"}
    code, _, err = await town.temporal("workflow", "list", "--query", query, "--limit", "1")
    assert code == 0, err
