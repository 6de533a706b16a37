"""Without an assessor nothing is tested, synced or watched: a run waits, says on whom, and goes on when one is back."""

import json
from datetime import timedelta

import pytest

from constitution.release import CurrentConstitution
from constitution.trust.attestation import GatePredicate, SyncPredicate, WatchPredicate
from signatures.attestations import verify_attestation
from signatures.trust_files import load_trust
from tests.workflow import outcomes
from tests.world.environment import RunningEnvironment, state_of

NAMED = timedelta(seconds=75)  # a run looks 30 s after it asked


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_a_run_names_an_assessor_that_is_away_and_goes_on_when_it_is_back(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    proposal = await env.author.propose()
    await env.kill("assessor")
    try:
        handle = await env.update(proposal)
        status = await env.until(handle, lambda s: "the assessor" in s.waiting_for, NAMED)
        assert env.names.assessor_queue() in status.waiting_for
        assert "run_regression_gate" in status.waiting_for
        assert state_of(status, "gate") == "running"
        code, out, _ = await env.constitution("status", handle.id, "--json")
        assert code == 0
        assert "the assessor" in json.loads(out)["waiting_for"]
    finally:
        await env.restart("assessor")
    await env.approve(handle, proposal)
    release = await outcomes.completed(env, handle, proposal)
    assert release.generation == live.generation + 1
    assert (await env.status(handle)).waiting_for == ""


@pytest.mark.slow
async def test_what_the_assessor_signed_about_a_release_is_there_for_everybody(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    handle, proposal = await env.approved(strategy="unseen")
    release = await outcomes.completed(env, handle, proposal)
    trust = load_trust(env.files.directory / "trust" / "trust.toml")
    assert release.evidence is not None
    about = [*await env.service.attestations(evidence=release.evidence)]
    about += await env.service.attestations(generation=live.generation + 1)
    said = [verify_attestation(envelope, trust) for envelope in about]
    assert {type(one) for one in said} == {GatePredicate, SyncPredicate, WatchPredicate}
    for one in said:
        if isinstance(one, SyncPredicate):
            assert one.problems(release, [t.id for t in env.config.targets]) == ()
        if isinstance(one, WatchPredicate):
            assert one.verdict is release.standings[-1].verdict
