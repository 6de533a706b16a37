"""Runs obey people whose keys are elsewhere: approved by one and denied by another; aborted by an operator."""

import json
from typing import Any

import pytest

from constitution.release import CurrentConstitution
from tests.gpg import hand
from tests.world.environment import RunningEnvironment

pytestmark = pytest.mark.timeout(240)


async def test_signatures_made_elsewhere_decide_a_run(env: RunningEnvironment, live: CurrentConstitution) -> None:
    folder = env.files.directory / "elsewhere"
    folder.mkdir()

    async def said(*arguments: str) -> Any:
        code, out, err = await env.constitution(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    proposal = await env.author.propose()
    asked = proposal.change_request
    await said("update", "--checksum", proposal.checksum, "--change-request", asked)
    for verb, person, armor in (("approve", "alva", False), ("deny", "bruno", True)):
        statement = folder / verb
        written = await said(verb, asked, "--print-statement", str(statement), "--reason", f"{person} says so")
        assert written["decision"] == verb
        with hand(env.files.tsk(person)) as signer:
            signature = signer.sign(statement, armor=armor)
        sent = await said(verb, asked, "--signature", str(signature), "--yes")
        assert sent["person"] == person
        if verb == "approve":
            assert "counted: 1 of 2" in sent["answer"]
    code, out, err = await env.constitution("watch", asked, "--timeout", "60")
    assert code != 0
    assert "bruno denied: bruno says so" in out + err

    asked = (await env.author.propose(proposal.document)).change_request
    await said("update", "--checksum", proposal.checksum, "--change-request", asked)
    written = await said("order", "abort", asked, "--print-statement", str(folder / "abort"), "--reason", "not today")
    assert written["order"] == "abort"
    with hand(env.files.tsk("olga")) as signer:
        signature = signer.sign(folder / "abort")
    await said("order", "abort", asked, "--signature", str(signature))
    code, out, err = await env.constitution("watch", asked, "--timeout", "60")
    assert code != 0
    assert "aborted by olga: not today" in out + err
    assert await env.author.current() == live
