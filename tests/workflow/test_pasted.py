"""What a run prints is pasted in the state in which it is printed; a signer sees how the release will be watched."""

import shlex
from datetime import timedelta

import pytest

from constitution.release import CurrentConstitution
from tests.world.environment import RunningEnvironment

pytestmark = pytest.mark.timeout(240)


def printed(text: str) -> list[list[str]]:
    """Return the commands of our own that a text prints, as words without the program's name."""
    lines = [line.strip().removeprefix("next:").strip() for line in text.splitlines()]
    commands = [shlex.split(line, comments=True) for line in lines if line.startswith("constitution ")]
    return [command[1:] for command in commands]


async def test_each_command_that_an_update_prints_works_where_it_is_printed(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    proposal = await env.author.propose()
    code, out, err = await env.constitution(
        *("update", "--checksum", proposal.checksum, "--change-request", proposal.change_request, "--text")
    )
    assert code == 0, err
    watch, approve, abort = printed(out)
    handle = env.run(watch[1])
    status = await env.until_step(handle, "board", "waiting")

    # Before anybody signs, it is said how the release will be watched, and which change is expected.
    assert status.strategy.startswith("default: ")
    assert status.predicted
    code, out, err = await env.constitution(*shlex.split(f"status {handle.id} --text"))
    assert code == 0, err
    assert f"watch        {status.strategy}" in out
    assert f"expected     {status.predicted[0]}" in out
    assert printed(out) == [approve]
    code, out, err = await env.constitution("status", "--text")
    assert code == 0, err
    assert "2 board members" in out
    assert approve in printed(out)
    code, _, err = await env.constitution(*watch, "--timeout", "1")
    assert code == 4, err
    key = str(env.files.directory / "keys" / "alva.tsk")
    code, out, err = await env.constitution(*approve, "--key", key, "--yes", "--text")
    assert code == 0, err
    assert f"watch          {status.strategy}" in err
    assert printed(out) == [watch]
    assert (await env.constitution(*abort))[0] == 0
    assert (await env.end(handle)).type == "Rejected"

    # It has published nothing: what is live is somebody else's, and no rollback is recommended.
    code, _, err = await env.constitution(*abort)
    assert code == 1
    (instead,) = printed(err)
    assert instead[0] == "status"
    assert (await env.constitution(*instead))[0] == 0
    assert await env.author.current() == live


@pytest.mark.slow
async def test_a_late_abort_names_the_generation_that_its_own_run_has_put_live(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    completed = await env.completed()
    generation = (await env.live()).generation
    code, _, err = await env.constitution("abort", completed.change_request, "--reason", "late")
    assert code == 1
    (undo,) = printed(err)
    assert undo[:3] == ["rollback", "--bad-generation", str(generation)]
    code, out, err = await env.constitution(*undo, "--dry-run", "--text")
    assert code == 0, err
    assert f"restores     generation {live.generation}, {live.version}" in out
    code, _, err = await env.constitution(*undo)
    assert code == 2
    assert "repeat with --yes" in err
    code, out, err = await env.constitution(*undo, "--yes", "--text")
    assert code == 0, err
    (watch, *_) = printed(out)
    undoing = env.run(watch[1])
    status = await env.until_step(undoing, "request", "waiting")  # nobody has signed it
    order, key = shlex.split(status.next_command)[1:], str(env.files.directory / "keys" / "olga.tsk")
    code, _, err = await env.constitution(*order, "--key", key)
    assert code == 0, err
    assert (await env.end(undoing, timedelta(seconds=90))).type is None
    assert (await env.live()).checksum == live.checksum
    code, _, err = await env.constitution(*undo, "--dry-run")
    assert code == 0, err
