"""Rollback by hand: authorised by the approvals of the bad release, safe to start twice, stronger than an update."""

import json

import pytest

from constitution.messages import Outcome
from constitution.release import CurrentConstitution, Kind
from tests.workflow import outcomes
from tests.workflow.town import LEAF, Town, state_of

pytestmark = pytest.mark.timeout(240)


async def test_a_confirmed_release_is_rolled_back_by_one_command_and_a_second_start_finds_it_done(
    town: Town, live: CurrentConstitution
) -> None:
    proposal = await town.completed()
    bad = (await town.live()).generation
    code, out, err = await town.constitution("rollback", "--reason", "found bad", "--yes", "--json")
    assert code == 0, err
    handle = town.run(json.loads(out)["workflow_id"])
    assert handle.id == town.rollback_id(bad)
    end = await town.end(handle)
    assert (end.type, end.result["outcome"]) == (None, Outcome.ROLLED_BACK)
    assert (end.result["bad_generation"], end.result["generation"]) == (bad, bad + 1)
    undoing = await outcomes.undone(town, proposal, live)
    status = await town.status(handle)
    assert state_of(status, "board") == "done"
    assert next(step.detail for step in status.steps if step.name == "board").startswith("authorised in advance")

    again = await town.start_run(
        "ConstitutionRollback", town.rollback_id(bad), {"reason": "found bad", "bad_generation": bad}
    )
    second = await town.end(again)
    assert (second.type, second.result["generation"]) == (None, undoing.generation)
    assert await outcomes.undone(town, proposal, live) == undoing  # told once, archived once, released once


async def test_two_starts_at_once_attach(town: Town, live: CurrentConstitution) -> None:
    proposal = await town.completed()
    bad = (await town.live()).generation
    with town.service_wire.holding("POST", "/v1/constitution/load") as load:
        first = await town.start_run("ConstitutionRollback", town.rollback_id(bad), {"reason": "found bad"})
        await load.reached()
        code, _, err = await town.constitution("rollback", "--reason", "me too", "--bad-generation", str(bad), "--yes")
        assert code == 0, err
        assert "rolled back already" in err
        load.release()
    assert (await town.end(first)).type is None
    await outcomes.undone(town, proposal, live)
    assert len(await town.runs_of(first.id)) == 1


@pytest.mark.usefixtures("live")
async def test_what_was_rolled_back_needs_a_board_to_be_undone_again(town: Town) -> None:
    await town.completed()
    bad = (await town.live()).generation
    first = await town.start_run("ConstitutionRollback", town.rollback_id(bad), {"reason": "found bad"})
    assert (await town.end(first)).type is None
    handle = await town.start_run(
        "ConstitutionRollback", town.rollback_id(bad + 1), {"reason": "it was good after all", "to": bad}
    )
    # It was withdrawn, not poisoned; but no approval of an update authorises this.
    status = await town.until_step(handle, "board", "waiting")
    assert "2 board members" in status.waiting_for
    for person in ("alva", "chen"):
        key = str(town.home / "keys" / f"{person}.tsk")
        code, _, err = await town.constitution("approve", handle.id, "--key", key, "--reason", "yes", "--yes")
        assert code == 0, err
    end = await town.end(handle)
    assert end.type is None, end.message
    now = await town.live()
    assert now.generation == bad + 2
    restored = await town.service.release(bad)
    assert now.checksum == restored.checksum


async def test_a_rollback_pre_empts_an_update_that_waits_in_sync_and_both_end_truly(
    town: Town, live: CurrentConstitution
) -> None:
    async with town.paused(LEAF):
        handle, proposal = await town.approved()
        status = await town.until_step(handle, "sync")
        assert status.generation == live.generation + 1
        rollback = await town.start_run(
            "ConstitutionRollback", town.rollback_id(status.generation), {"reason": "stop it"}
        )
        await town.until(rollback, lambda s: s.generation is not None)
        await town.go_on(LEAF)
        end = await town.end(rollback)
        assert (end.type, end.result["generation"]) == (None, live.generation + 2), end.message
        await outcomes.rolled_back(town, handle, proposal, live)
    kinds = [release.kind for release in await town.service.releases() if release.generation > live.generation]
    assert sorted(kinds) == [Kind.ROLLBACK, Kind.UPDATE]
