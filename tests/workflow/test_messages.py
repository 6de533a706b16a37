"""Messages to a run: hostile ones are refused, recorded and audited, and the run goes on; one denial stops it."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.client import WorkflowHandle, WorkflowUpdateFailedError
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

from constitution.api import LeaseRequest
from constitution.errors import UpdateClosedError
from constitution.messages import Outcome, Phase, Status
from constitution.release import CurrentConstitution, Envelope, Kind
from constitution.trust.approval import BoardDecision, OrderPredicate
from deploy.embedded.development import ENVIRONMENT
from signatures.openpgp import generate_key
from signatures.statements import sign_approval, sign_order
from tests.helpers import eventually
from tests.workflow import truth
from tests.world.author import Proposal
from tests.world.environment import RunningEnvironment, state_of

OTHER = "sha256:" + "1" * 64


class Waiting:
    """A run that waits for the board."""

    def __init__(
        self, env: RunningEnvironment, handle: WorkflowHandle[Any, Any], proposal: Proposal, status: Status
    ) -> None:
        self.env, self.handle, self.proposal, self.status = env, handle, proposal, status

    def decision(self, person: str, /, **changes: Any) -> dict[str, Any]:
        return decided(self.env.author.approval(person, self.proposal, self.status, **changes))

    async def order(self) -> dict[str, Any]:
        """A signed order to skip, from a board member, of the right run."""
        status = await self.env.status(self.handle)
        now = datetime.now(UTC)
        predicate = OrderPredicate(
            environment=status.environment or "",
            workflow_id=self.handle.id,
            update_id=status.update_id or "",
            order="skip",
            step="gate",
            reason="why not",
            issued_at=now,
            expires_at=now + timedelta(hours=1),
        )
        return {"order": sign_order(predicate, self.env.files.tsk("alva")).model_dump(mode="json")}


def decided(envelope: Envelope) -> dict[str, Any]:
    return {"approval": envelope.model_dump(mode="json")}


def forged(waiting: Waiting) -> dict[str, Any]:
    """Alva's decision, in which one letter of the payload was changed after she signed."""
    said = waiting.decision("alva")
    payload = said["approval"]["payload"]
    said["approval"]["payload"] = ("B" if payload[0] == "A" else "A") + payload[1:]
    return said


def stranger(waiting: Waiting) -> dict[str, Any]:
    """A decision signed by a key that the trust policy does not name."""
    from signatures.statements import verify_approval
    from signatures.trust_files import load_trust

    now = datetime.now(UTC)
    envelope = waiting.env.author.approval("alva", waiting.proposal, waiting.status)
    trust = load_trust(waiting.env.files.directory / "trust" / "trust.toml")
    _, predicate = verify_approval(envelope, trust, now)
    secret, _, _ = generate_key("Nobody <nobody@example.invalid>")
    return decided(sign_approval(predicate, secret))


@pytest.fixture
async def waiting(env: RunningEnvironment) -> Waiting:
    """An update that waits for the board, where something is live already."""
    await env.live()
    proposal = await env.author.propose()
    handle = await env.update(proposal)
    status = await env.until_step(handle, "board", "waiting")
    assert status.evidence is not None
    return Waiting(env, handle, proposal, status)


Make = Callable[[Waiting], Any]

HOSTILE: dict[str, tuple[str, Make, str]] = {
    "no decision": ("decide", lambda _: {}, "/approval"),
    "an array": ("decide", lambda _: [1, 2], "one JSON object"),
    "a string": ("abort", lambda _: "stop", "one JSON object"),
    "an unknown field": ("abort", lambda _: {"reason": "x", "force": True}, "/force"),
    "an empty reason": ("abort", lambda _: {"reason": ""}, "/reason"),
    "no JSON": ("abort", lambda _: RawValue(Payload(metadata={"encoding": b"json/plain"}, data=b"{")), "not JSON"),
    "an unknown encoding": ("abort", lambda _: RawValue(Payload(metadata={"encoding": b"x/y"}, data=b"{}")), "JSON"),
    "a forged payload": ("decide", forged, ""),
    "a stranger's key": ("decide", stranger, ""),
    "the maintainer, who is not of the board": ("decide", lambda w: w.decision("mara"), "mara"),
    "another document": ("decide", lambda w: w.decision("alva", checksum=OTHER), "checksum"),
    "another change request": ("decide", lambda w: w.decision("alva", change_request="CR-other"), "change_request"),
    "other evidence": ("decide", lambda w: w.decision("alva", evidence=OTHER), "evidence"),
    "another environment": ("decide", lambda w: w.decision("alva", environment="production"), "environment"),
    "an expired decision": (
        "decide",
        lambda w: w.decision(
            "alva",
            issued_at=datetime.now(UTC) - timedelta(days=2),
            expires_at=datetime.now(UTC) - timedelta(days=1),
        ),
        "expired",
    ),
    "an order with a decision's signature": ("promote", lambda w: {"order": w.decision("alva")["approval"]}, ""),
    "skip before confirmation": ("skip", Waiting.order, "broadcast and archive"),
}


async def made(make: Make, waiting: Waiting) -> Any:
    body = make(waiting)
    return await body if isinstance(body, Awaitable) else body


async def test_hostile_messages_are_refused_recorded_and_audited_and_the_run_goes_on(waiting: Waiting) -> None:
    env, handle = waiting.env, waiting.handle
    expected = []
    for name, (verb, make, words) in HOSTILE.items():
        body = await made(make, waiting)
        before = await env.status(handle)
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await handle.execute_update(verb, body)
        assert isinstance(refused.value.cause, ApplicationError), name
        assert words in refused.value.cause.message, name
        await handle.signal(verb, body)  # the same as a signal, which has nobody to answer
        expected += [f"{verb}.refused"] * 2
        shown = min(20, len(expected))  # the newest twenty are kept
        status = await env.until(handle, lambda s, shown=shown: len(s.refusals) == shown)  # type: ignore[misc]
        if len(expected) <= 20:
            assert all(line.startswith(f"{verb}: ") and words in line for line in status.refusals[-2:]), name
        assert (status.phase, state_of(status, "board"), status.approvers) == (before.phase, "waiting", ()), name
    await eventually(lambda: sorted(env.reads.audited(handle.id)) == sorted(expected))
    await _abort(waiting)


async def _abort(waiting: Waiting) -> None:
    await waiting.handle.execute_update("abort", {"reason": "enough"})
    end = await waiting.env.end(waiting.handle)
    assert (end.type, "aborted: enough" in end.message) == ("Rejected", True)


async def test_a_signal_with_a_wrong_number_of_arguments_does_not_end_the_run(waiting: Waiting) -> None:
    env, handle = waiting.env, waiting.handle
    wrong: tuple[list[Any], ...] = ([], [{"reason": "x"}, {"reason": "y"}])
    for count, arguments in enumerate(wrong, start=1):
        for verb in ("abort", "decide", "skip", "promote", "hold"):
            await handle.signal(verb, args=arguments)
        status = await env.until(handle, lambda s, expected=5 * count: len(s.refusals) == expected)  # type: ignore[misc]
        assert state_of(status, "board") == "waiting"
        await eventually(lambda expected=5 * count: len(env.reads.audited(handle.id)) == expected)  # type: ignore[misc]
    await _abort(waiting)


@pytest.mark.slow
@pytest.mark.usefixtures("live")
async def test_an_author_approves_nothing_of_their_own_and_nobody_counts_twice(env: RunningEnvironment) -> None:
    document = await env.author.next_draft()
    artifact = await env.service.push(document, [env.author.sign(document)])
    change_request = await env.author.ask(artifact.checksum, author="chen")
    proposal = Proposal(document=document, change_request=change_request)
    handle = await env.update(proposal)
    status = await env.until_step(handle, "board", "waiting")

    async def decide(person: str) -> str:
        envelope = env.author.approval(person, proposal, status)
        answer: str = await handle.execute_update("decide", decided(envelope))
        return answer

    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await decide("chen")
    assert isinstance(refused.value.cause, ApplicationError)
    assert "chen" in refused.value.cause.message
    assert "1 of 2" in await decide("bruno")
    assert "1 of 2" in await decide("bruno")  # a new signature of the same person
    after = await env.status(handle)
    assert (after.approvers, state_of(after, "board")) == (("bruno",), "waiting")
    assert status.waiting_for == f"2 board members to approve {change_request}"
    assert after.waiting_for == f"1 more board member to approve {change_request} (approved by bruno)"
    assert "2 of 2" in await decide("alva")
    end = await env.end(handle)
    assert end.type is None, end.message
    assert end.result["approvers"] == ["alva", "bruno"]
    assert env.reads.audited(handle.id).count("decide.refused") == 1


async def test_one_denial_rejects(waiting: Waiting, live: CurrentConstitution) -> None:
    env = waiting.env
    await waiting.handle.execute_update("decide", waiting.decision("alva"))
    answer = await waiting.handle.execute_update(
        "decide", waiting.decision("bruno", decision=BoardDecision.DENY, reason="not this one")
    )
    assert "rejected" in answer
    end = await env.end(waiting.handle)
    assert (end.status, end.type) == ("FAILED", "Rejected")
    assert "bruno denied: not this one" in end.message
    status = await env.status(waiting.handle)
    assert (status.outcome, status.phase) == (Outcome.REJECTED, Phase.CLOSED)
    assert await env.author.current() == live
    assert "update.rejected" in await eventually(lambda: env.reads.audited(waiting.handle.id))
    assert len(env.reads.told_about(waiting.proposal.version, "rejected", "not this one")) == 1
    await truth.of_rejected(env, waiting.handle, waiting.proposal, denied_by="bruno")
    known = await env.service.update(status.update_id or "")
    assert [(step.state.value, step.actor) for step in known.steps[1:]] == [("denied", "bruno")]
    with pytest.raises(UpdateClosedError, match="denied by bruno"):  # whoever has the approvals, and the lease
        await env.service.acquire_lease(
            LeaseRequest(update_id=known.update_id, kind=Kind.UPDATE), f"{ENVIRONMENT}/{known.update_id}/lease-late"
        )


async def test_an_aborted_run_is_aborted_in_the_service_whoever_sends_its_approvals_later(waiting: Waiting) -> None:
    env = waiting.env
    await waiting.handle.execute_update("decide", waiting.decision("alva"))
    await waiting.handle.execute_update("abort", {"reason": "not today"})
    assert (await env.end(waiting.handle)).type == "Rejected"
    update_id = (await env.status(waiting.handle)).update_id or ""
    assert [step.state.value for step in (await env.service.update(update_id)).steps] == ["open", "aborted"]
    assert "not today" in (await env.service.update(update_id)).steps[-1].reason


async def test_a_message_to_a_closed_run_changes_nothing(waiting: Waiting, live: CurrentConstitution) -> None:
    await _abort(waiting)
    code, _, err = await waiting.env.constitution(
        "approve", waiting.handle.id, "--key", str(waiting.env.files.directory / "keys" / "alva.tsk"), "--yes"
    )
    assert code == 1
    assert "too late" in err
    assert await waiting.env.author.current() == live
