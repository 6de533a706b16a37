"""Requests are resolved or refused with every problem; the gate leaves evidence; only the board's word counts."""

from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from activities.gate import Gate, GateInput
from activities.plan import RollbackPlan
from activities.preconditions import (
    DecisionInput,
    OrderInput,
    Preconditions,
    RecheckInput,
    ResolveInput,
    RollbackDecisionInput,
)
from activities.stage import Stage, StageInput
from activities.update_plan import UpdatePlan
from activities.validate import Validate
from adapters.regression_gate import run_gate
from adapters.worker_config import WorkerConfig
from constitution.checksum import checksum_of
from constitution.environment import Deadlines, Strategy
from constitution.messages import UpdateRequest
from constitution.policy.draft import fill
from constitution.release import Envelope, Kind, Standing
from constitution.trust.approval import BoardDecision, OrderPredicate
from constitution.trust.attestation import GatePredicate
from signatures.attestations import verify_attestation
from signatures.statements import sign_order
from tests.integration.activity_support import assessor_of, make_config, now, refused, run, update_plan_of
from tests.world.author import Author
from tests.world.documents import following
from tests.world.files import ENVIRONMENT, EnvironmentFiles


@pytest.fixture
def config(environment_files: EnvironmentFiles, tmp_path: Path) -> WorkerConfig:
    return make_config(environment_files, tmp_path)


@pytest.fixture
def preconditions(author: Author, config: WorkerConfig) -> Preconditions:
    return Preconditions(service=author.worker, config=config)


def gate_input(document: bytes, change_request: str) -> GateInput:
    return GateInput(
        environment=ENVIRONMENT,
        checksum=checksum_of(document),
        change_request=change_request,
        update_id=str(uuid4()),
    )


def asked(**fields: Any) -> ResolveInput:
    request = UpdateRequest.model_validate(fields)
    return ResolveInput(request=request, update_id=str(uuid4()), workflow_id="w", run_id="r")


def codes(failure: Any) -> set[str]:
    assert failure.details, failure
    return {issue["code"] for issue in failure.details[0]["issues"]}


async def resolved(preconditions: Preconditions, author: Author, document: bytes) -> tuple[UpdatePlan, str]:
    checksum = await author.push(document)
    change_request = await author.ask(checksum)
    update = await run(preconditions.resolve_update, asked(checksum=checksum, change_request=change_request))
    return update, await author.evidence(document, change_request)


async def test_a_request_is_resolved_against_the_world_and_changes_nothing(
    preconditions: Preconditions, author: Author
) -> None:
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    document = author.draft("1.1.0", following(first))
    update, _ = await resolved(preconditions, author, document)
    assert (update.checksum, update.version, update.author) == (checksum_of(document), "1.1.0", "mara")
    assert (update.expected_generation, update.approvals_needed, update.previous) == (1, 2, following(first))
    assert not update.first
    assert len(await author.worker.releases()) == 1


async def test_every_problem_of_a_request_is_listed_at_once(preconditions: Preconditions, author: Author) -> None:
    failure = await refused(
        preconditions.resolve_update,
        asked(checksum=checksum_of(b"never"), change_request="CR-never", strategy="never"),
    )
    assert (failure.type, failure.non_retryable) == ("invalid-request", True)
    assert codes(failure) == {"unknown-checksum", "unknown-change-request", "unknown-strategy"}
    assert failure.details[0]["hint"].startswith("push the document")
    first = await author.confirmed(author.draft("1.1.0"), expected_generation=0)
    late = author.draft("1.0.0", expires_at=(now() + timedelta(hours=1)).isoformat())
    checksum = await author.push(late)
    change_request = await author.ask(first.checksum or "")
    failure = await refused(preconditions.resolve_update, asked(checksum=checksum, change_request=change_request))
    assert codes(failure) == {"version-order", "previous", "about-to-expire", "other-document"}
    assert "draft it anew" in failure.message


async def test_a_withdrawn_document_is_asked_for_by_a_new_request_only(
    preconditions: Preconditions, author: Author
) -> None:
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    document = author.draft("1.1.0", following(first))
    _, held = await author.publish(document, expected_generation=1)
    used = (await author.worker.release(2)).change_request or ""
    undo = await author.lease(held.update_id, Kind.ROLLBACK)
    await author.load(author.undoing(undo, 2, first.checksum), "undo")
    await author.stand(2, Standing.WITHDRAWN, undo)

    again = {"checksum": checksum_of(document)}
    failure = await refused(preconditions.resolve_update, asked(change_request=used, **again))
    assert codes(failure) == {"used-change-request"}
    fresh = await author.ask(checksum_of(document))
    assert (await run(preconditions.resolve_update, asked(change_request=fresh, **again))).version == "1.1.0"


async def test_the_inbox_gives_only_plain_files_by_name(
    preconditions: Preconditions, author: Author, config: WorkerConfig, tmp_path: Path
) -> None:
    document = author.draft("1.0.0")
    inbox = config.inbox_directory
    (inbox / "new.json").write_bytes(document)
    (inbox / "new.sig").write_bytes(author.sign(document))
    secret = tmp_path / "secret"
    secret.write_bytes(document)
    (inbox / "link.json").symlink_to(secret)
    (inbox / "folder").mkdir()
    (inbox / "big.json").write_bytes(b" " * (1024 * 1024 + 1))
    checksum = await author.push(document)
    change_request = await author.ask(checksum)
    for name in ("link.json", "folder", "big.json", "missing.json"):
        failure = await refused(
            preconditions.resolve_update,
            asked(document=name, signatures=["new.sig", "missing.sig"], change_request=change_request),
        )
        assert codes(failure) == {"inbox"}
        assert [i["path"] for i in failure.details[0]["issues"]] == ["/document", "/signatures/1"]
    update = await run(
        preconditions.resolve_update,
        asked(document="new.json", signatures=["new.sig"], change_request=change_request),
    )
    assert update.checksum == checksum
    assert (await run(preconditions.verify_signatures, update)).signers == ("mara",)


async def test_staging_from_the_inbox_refuses_a_file_that_was_changed_meanwhile(
    author: Author, config: WorkerConfig
) -> None:
    document = author.draft("1.0.0")
    (config.inbox_directory / "new.json").write_bytes(document)
    (config.inbox_directory / "new.sig").write_bytes(author.sign(document))
    update = update_plan_of(document, "CR-1", document="new.json", signatures=("new.sig",))
    stage = Stage(service=author.worker, config=config)
    order = StageInput(update=update, document="new.json", signatures=("new.sig",))
    artifact = await run(stage.stage_artifact, order)
    assert artifact.checksum == update.checksum
    assert await run(stage.stage_artifact, order) == artifact
    assert await run(stage.stage_artifact, StageInput(update=update)) == artifact
    (config.inbox_directory / "new.json").write_bytes(document + b" ")
    assert (await refused(stage.stage_artifact, order)).type == "untrusted"
    validate = Validate(service=author.worker, config=config)
    assert (await run(validate.validate_signature, update)).valid
    unknown = update_plan_of(author.draft("1.0.1"), "CR-1")
    assert (await refused(validate.validate_signature, unknown)).type == "not-found"


async def test_a_signature_of_a_stranger_does_not_count(
    preconditions: Preconditions, author: Author, config: WorkerConfig
) -> None:
    document = author.draft("1.0.0")
    (config.inbox_directory / "new.json").write_bytes(document)
    (config.inbox_directory / "new.sig").write_bytes(author.sign(document, "alva"))
    update = update_plan_of(document, "CR-1", document="new.json", signatures=("new.sig",))
    failure = await refused(preconditions.verify_signatures, update)
    assert (failure.type, failure.non_retryable) == ("untrusted", True)
    assert "alva" in failure.message


async def test_only_the_boards_word_on_these_very_bytes_counts(preconditions: Preconditions, author: Author) -> None:
    document = author.draft("1.0.0")
    update, evidence = await resolved(preconditions, author, document)

    def decision(person: str, **changes: Any) -> Envelope:
        fields = {"change_request": update.change_request, "evidence": evidence, "plan": update.plan, **changes}
        return author.approvals(document, members=(person,), **fields)[0]

    def ask(envelope: Envelope, *seen: Envelope) -> DecisionInput:
        return DecisionInput(update=update, evidence=evidence, envelope=envelope, seen=seen)

    alva, bruno = decision("alva"), decision("bruno")
    first = await run(preconditions.check_decision, ask(alva))
    assert (first.person, first.decision, first.approvers, first.satisfied) == (
        "alva",
        BoardDecision.APPROVE,
        ("alva",),
        False,
    )
    again = await run(preconditions.check_decision, ask(decision("alva", reason="twice"), alva))
    assert (again.approvers, again.satisfied) == (("alva",), False)
    both = await run(preconditions.check_decision, ask(bruno, alva))
    assert (both.approvers, both.satisfied) == (("alva", "bruno"), True)
    denied = await run(preconditions.check_decision, ask(decision("chen", decision=BoardDecision.DENY), alva))
    assert (denied.decision, denied.satisfied) == (BoardDecision.DENY, False)
    for refusal in (
        decision("mara"),  # the author, and no member of the board
        decision("alva", evidence=checksum_of(b"other")),
        decision("alva", change_request="CR-other"),
        decision("alva", checksum=checksum_of(b"other")),
        decision("alva", plan=None),
        decision("alva", plan=update.plan.model_copy(update={"update_id": str(uuid4())})),
        decision("alva", plan=update.plan.model_copy(update={"watch": Strategy(watch_seconds=0)})),
        decision("alva", plan=update.plan.model_copy(update={"not_before": now()})),
        decision("alva", plan=update.plan.model_copy(update={"rings": ("canary",)})),
        decision("alva", environment="production"),
        decision("alva", expires_at=now() - timedelta(seconds=1)),
        decision("mara", decision=BoardDecision.DENY),
        decision("alva", decision=BoardDecision.DENY, checksum=checksum_of(b"other")),
        alva.model_copy(update={"payload": bruno.payload[:-4] + "AAAA"}),
    ):
        failure = await refused(preconditions.check_decision, ask(refusal))
        assert (failure.type, failure.non_retryable) == ("not-approved", True)
    recheck = RecheckInput(update=update, evidence=evidence, envelopes=(alva, bruno))
    assert await run(preconditions.recheck, recheck) == update
    failure = await refused(preconditions.recheck, recheck.model_copy(update={"envelopes": (alva,)}))
    assert failure.type == "not-approved"
    await author.confirmed(author.draft("0.9.0"), expected_generation=0)
    failure = await refused(preconditions.recheck, recheck)
    assert failure.type == "invalid-document"
    assert codes(failure) == {"previous"}


async def test_the_quorum_of_a_rollback_signs_what_is_restored(preconditions: Preconditions, author: Author) -> None:
    document = author.draft("1.0.0")
    plan = RollbackPlan(
        environment=ENVIRONMENT,
        update_id=str(uuid4()),
        kind=Kind.ROLLBACK,
        bad_generation=4,
        bad_version="1.3.0",
        bad_checksum=checksum_of(b"bad"),
        restore_generation=1,
        version="1.0.0",
        checksum=checksum_of(document),
        rings=("default",),
        expected_generation=4,
        already=None,
        done=False,
        needs_quorum=True,
        quorum=2,
        change_request=None,
        summary="",
        approvers=(),
        channel="#release",
        deadlines=Deadlines(),
        links={},
        standing_for_bad=Standing.WITHDRAWN,
    )
    fields: dict[str, Any] = {"kind": Kind.ROLLBACK, "previous": None, "rollback_of": 4}
    alva, bruno = author.approvals(document, members=("alva", "bruno"), **fields)
    result = await run(
        preconditions.check_rollback_decision, RollbackDecisionInput(plan=plan, envelope=bruno, seen=(alva,))
    )
    assert (result.approvers, result.satisfied) == (("alva", "bruno"), True)
    (other,) = author.approvals(document, members=("alva",), **{**fields, "rollback_of": 3})
    failure = await refused(preconditions.check_rollback_decision, RollbackDecisionInput(plan=plan, envelope=other))
    assert "rollback_of" in failure.message


async def test_an_order_counts_for_one_run_step_and_time(preconditions: Preconditions, author: Author) -> None:
    update_id = str(uuid4())
    predicate = OrderPredicate(
        environment=ENVIRONMENT,
        workflow_id="test",
        update_id=update_id,
        order="skip",
        step="broadcast",
        reason="Slack is down",
        issued_at=now(),
        expires_at=now() + timedelta(hours=1),
    )

    def ask(person: str, **changes: Any) -> OrderInput:
        envelope = sign_order(predicate.model_copy(update=changes), author.files.tsk(person))
        return OrderInput(
            environment=ENVIRONMENT,
            workflow_id="test",
            update_id=update_id,
            order="skip",
            step="broadcast",
            envelope=envelope,
        )

    said = await run(preconditions.check_order, ask("alva"))
    assert (said.person, said.reason, said.needed) == ("alva", "Slack is down", 1)
    for bad in (ask("mara"), ask("alva", step="watch"), ask("alva", workflow_id="x"), ask("alva", order="promote")):
        failure = await refused(preconditions.check_order, bad)
        assert (failure.type, failure.non_retryable) == ("not-approved", True)
    failure = await refused(preconditions.check_order, ask("alva", expires_at=now()))
    assert "expired" in failure.message


@pytest.mark.timeout(240)
async def test_a_template_passes_the_gate_and_a_bad_draft_does_not(author: Author, config: WorkerConfig) -> None:
    document = fill(
        "tool-use",
        version="1.0.0",
        environment=ENVIRONMENT,
        issued_at=now(),
        expires_at=now() + timedelta(days=90),
        previous=None,
    )
    checksum = await author.push(document)
    change_request = await author.ask(checksum)
    gate = Gate(service=author.assessor, config=config, gate=run_gate, assessor=assessor_of(author, config))
    passed = await run(gate.run_regression_gate, gate_input(document, change_request))
    evidence = await author.worker.evidence(passed.evidence)
    assert (evidence.checksum, evidence.change_request) == (checksum, change_request)
    assert [suite.name for suite in evidence.suites] == ["policy", "chaos"]
    for suite in evidence.suites:
        assert suite.tests > 0
        assert (await author.worker.blob(suite.junit)).lstrip().startswith(b"<?xml")
    assert passed.diff
    (envelope,) = await author.worker.attestations(evidence=passed.evidence)
    said = verify_attestation(envelope, author.files.trust)
    assert said == GatePredicate.of(evidence, passed.evidence)
    assert said.result == "PASSED"
    bad = author.draft("1.0.1")
    asked = gate_input(bad, await author.ask(await author.push(bad)))
    failure = await refused(gate.run_regression_gate, asked)
    assert (failure.type, failure.non_retryable) == ("evidence-refused", True)
    assert failure.details[0]["issues"]
