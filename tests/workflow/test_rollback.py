"""Rollback by hand: authorised by the approvals of the bad release, safe to start twice, stronger than an update."""

import json

import pytest

from constitution.messages import Outcome
from constitution.release import CurrentConstitution, Kind
from tests.workflow import outcomes
from tests.world.environment import LEAF, RunningEnvironment, state_of

pytestmark = pytest.mark.timeout(240)


async def test_a_confirmed_release_is_rolled_back_by_one_command_and_a_second_start_finds_it_done(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    proposal = await env.completed()
    bad = (await env.live()).generation
    code, out, err = await env.constitution(
        "rollback", "--reason", "found bad", "--yes", "--json", "--key", str(env.files.directory / "keys" / "olga.tsk")
    )
    assert code == 0, err
    handle = env.run(json.loads(out)["workflow_id"])
    assert handle.id == env.rollback_id(bad)
    end = await env.end(handle)
    assert (end.type, end.result["outcome"]) == (None, Outcome.ROLLED_BACK)
    assert (end.result["bad_generation"], end.result["generation"]) == (bad, bad + 1)
    undoing = await outcomes.undone(env, proposal, live)
    status = await env.status(handle)
    assert state_of(status, "board") == "done"
    assert next(step.detail for step in status.steps if step.name == "board").startswith("authorised in advance")

    again = await env.start_run(
        "ConstitutionRollback", env.rollback_id(bad), {"reason": "found bad", "bad_generation": bad}
    )
    second = await env.end(again)
    assert (second.type, second.result["generation"]) == (None, undoing.generation)
    assert await outcomes.undone(env, proposal, live) == undoing  # told once, archived once, released once
    await env.rest()  # the guards have archived the histories, and had the receipts sealed
    await outcomes.receipts_verify(env, f"{proposal.version}-{bad}", f"{undoing.version}-{undoing.generation}")


@pytest.mark.slow
async def test_two_starts_at_once_attach(env: RunningEnvironment, live: CurrentConstitution) -> None:
    proposal = await env.completed()
    bad = (await env.live()).generation
    with env.service_wire.holding("POST", "/v1/constitution/load") as load:
        first = await env.start_rollback(bad)
        await load.reached()
        code, _, err = await env.constitution("rollback", "--reason", "me too", "--bad-generation", str(bad), "--yes")
        assert code == 0, err
        assert "rolled back already" in err
        load.release()
    assert (await env.end(first)).type is None
    await outcomes.undone(env, proposal, live)
    assert len(await env.runs_of(first.id)) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("live")
async def test_what_was_rolled_back_needs_a_board_to_be_undone_again(env: RunningEnvironment) -> None:
    await env.completed()
    bad = (await env.live()).generation
    first = await env.start_rollback(bad)
    assert (await env.end(first)).type is None
    handle = await env.start_run(
        "ConstitutionRollback", env.rollback_id(bad + 1), {"reason": "it was good after all", "to": bad}
    )
    # It was withdrawn, not poisoned; but no approval of an update authorises this.
    status = await env.until_step(handle, "board", "waiting")
    assert "2 board members" in status.waiting_for
    for person in ("alva", "chen"):
        key = str(env.files.directory / "keys" / f"{person}.tsk")
        code, _, err = await env.constitution("approve", handle.id, "--key", key, "--reason", "yes", "--yes")
        assert code == 0, err
    end = await env.end(handle)
    assert end.type is None, end.message
    now = await env.live()
    assert now.generation == bad + 2
    restored = await env.service.release(bad)
    assert now.checksum == restored.checksum


@pytest.mark.slow
async def test_a_rollback_pre_empts_an_update_that_waits_in_sync_and_both_end_truly(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    async with env.paused(LEAF):
        handle, proposal = await env.approved()
        status = await env.until_step(handle, "sync")
        assert status.generation == live.generation + 1
        rollback = await env.start_rollback(status.generation, "stop it")
        await env.until(rollback, lambda s: s.generation is not None)
        await env.go_on(LEAF)
        end = await env.end(rollback)
        assert (end.type, end.result["generation"]) == (None, live.generation + 2), end.message
        await outcomes.rolled_back(env, handle, proposal, live)
    kinds = [release.kind for release in await env.service.releases() if release.generation > live.generation]
    assert sorted(kinds) == [Kind.ROLLBACK, Kind.UPDATE]


@pytest.mark.slow
@pytest.mark.usefixtures("live")
async def test_the_board_withdraws_what_is_live_and_every_consumer_denies_until_it_is_restored(
    env: RunningEnvironment,
) -> None:
    await env.completed()  # a first release is withdrawn by its own approvals
    bad = (await env.live()).generation
    code, out, err = await env.constitution("withdraw", "--reason", "stop everything", "--yes", "--json")
    assert code == 0, err
    assert "restores     NOTHING" in err
    handle = env.run(json.loads(out)["workflow_id"])
    status = await env.until_step(handle, "board", "waiting")
    assert "2 board members" in status.waiting_for
    for person in ("alva", "chen"):
        assert (await env.live()).generation == bad, "one member withdraws nothing"
        key = str(env.files.directory / "keys" / f"{person}.tsk")
        code, _, err = await env.constitution("approve", handle.id, "--key", key, "--reason", "yes", "--yes")
        assert code == 0, err
    end = await env.end(handle)
    assert end.type is None, end.message
    now = await env.service.current()
    assert now is not None
    assert (now.generation, now.kind, now.document) == (bad + 1, Kind.WITHDRAW, None)
    back = await env.start_run("ConstitutionRollback", env.rollback_id(bad + 1), {"reason": "go on", "to": bad})
    await env.until_step(back, "board", "waiting")
    for person in ("alva", "chen"):
        key = str(env.files.directory / "keys" / f"{person}.tsk")
        code, _, err = await env.constitution("approve", back.id, "--key", key, "--reason", "yes", "--yes")
        assert code == 0, err
    assert (await env.end(back)).type is None
    assert (await env.live()).checksum == (await env.service.release(bad)).checksum
