"""The command line and the typed client against the real constitution-service, its PostgreSQL, Valkey and Kafka."""

import json
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pytest

from constitution.api import AuditEvent, LeaseRelease, LeaseRequest, LoadRequest, WorkflowRef
from constitution.checksum import checksum_of
from constitution.errors import (
    ForbiddenError,
    InvalidRequestError,
    LeaseHeldError,
    LeaseLostError,
    NotFoundError,
    UnavailableError,
)
from constitution.release import Envelope, Kind
from constitution.trust.attestation import GatePredicate
from constitution_client.service import ConstitutionServiceClient
from signatures.openpgp import fingerprint_of_key, sign_detached
from signatures.statements import verify_order
from tests.gpg import hand
from tests.helpers import eventually
from tests.ports import free_port
from tests.terminal import Terminal
from tests.unit.openpgp_stubs import stub_on_token
from tests.world.author import Author
from tests.world.documents import document
from tests.world.files import CHECKOUT, ENVIRONMENT, EnvironmentFiles
from tests.world.processes import Service, run_constitution

DELIVERED = timedelta(seconds=30)  # the first record of a fresh topic and transactional id takes seconds


class Done(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Constitution = Callable[..., Done]


def _settings(environment_files: EnvironmentFiles, url: str, namespace: str) -> dict[str, str]:
    return {
        "CONSTITUTION_SERVICE_URL": url,
        "CLIENT_KEY_FILE": str(environment_files.key_file("operator")),
        "ENVIRONMENT_FILE": str(environment_files.environment_file),
        "NAMESPACE": namespace,
        "PYTHONPATH": str(CHECKOUT),
        "PATH": os.environ["PATH"],
    }


def cli(environment_files: EnvironmentFiles, url: str, namespace: str, **besides: str) -> Constitution:
    settings = _settings(environment_files, url, namespace) | besides

    def constitution(*arguments: str | Path, **more: str) -> Done:
        done = Done(
            *run_constitution(
                {name: value for name, value in {**settings, **more}.items() if value},
                *map(str, arguments),
                directory=environment_files.directory,
                within=90,
            )
        )
        assert "Traceback" not in done.err, done.err
        return done

    return constitution


@pytest.fixture
def constitution(environment_files: EnvironmentFiles, constitution_service: Service, namespace: str) -> Constitution:
    return cli(environment_files, constitution_service.url, namespace)


def _signed(environment_files: EnvironmentFiles, name: str, data: bytes) -> tuple[Path, Path]:
    path, signature = environment_files.directory / name, environment_files.directory / "path.sig"
    path.write_bytes(data)
    signature.write_bytes(sign_detached(data, environment_files.tsk("mara")))
    return path, signature


async def test_a_constitution_goes_live_by_hand_as_the_runbook_says(  # noqa: PLR0915 - one story, told in order
    environment_files: EnvironmentFiles, constitution_service: Service, constitution: Constitution, author: Author
) -> None:
    worker = author.worker
    data = document("1.4.0")
    checksum = checksum_of(data)
    path, signature = _signed(environment_files, "constitution_v1.4.json", data)

    before = constitution("current")
    assert (before.code, before.out) == (1, "")
    assert "no release was ever made" in before.err
    assert constitution("releases").json == []

    assert constitution("validate", "--path", path, "--signature", signature).json["valid"] is True

    pushed = constitution("push", "--path", path.name, "--signature", signature.name)
    assert pushed.code == 0, pushed.err
    assert pushed.json["checksum"] == checksum
    assert pushed.json["signers"] == ["mara"]
    assert constitution("push", "--path", path, "--signature", signature).json == pushed.json
    assert constitution("validate", "--checksum", checksum).json["valid"] is True
    copy = environment_files.directory / "copy.json"
    assert constitution("show", checksum, "--out", copy).code == 0
    assert copy.read_bytes() == data

    asked = ("change-request", "--id", "CR-142", "--checksum", checksum, "--reason", "first")
    filed = constitution(*asked, "--key", environment_files.directory / "keys" / "mara.tsk")
    assert filed.code == 0, filed.err
    assert constitution("show", "CR-142").json["request"]["author"] == "mara"

    update_id = str(uuid4())
    wanted = ("--checksum", checksum, "--change-request", "CR-142", "--reason", "first release")
    load = ("load", *wanted, "--update-id", update_id)
    unnamed = constitution("load", *wanted)
    assert unnamed.code != 0
    assert "--update-id" in unnamed.err
    refused = constitution(*load)
    assert (refused.code, refused.out) == (1, "")
    assert await worker.lease() is None, "a refused load gives the lease back"

    evidence = await author.evidence(data, "CR-142")
    approvals: list[str | Path] = []
    for member in ("alva", "bruno"):
        decide = ("approve", "CR-142", "--checksum", checksum, "--evidence", evidence, "--update-id", update_id)
        decided = constitution(
            *decide, "--print", "--yes", "--key", environment_files.directory / "keys" / f"{member}.tsk"
        )
        assert decided.code == 0, decided.err
        assert "this is a first release" in decided.err
        assert f"update         {update_id}" in decided.err
        approval = environment_files.directory / f"{member}.approval.json"
        approval.write_text(decided.out)
        approvals += ["--approval", approval]

    one_only = constitution(*load, "--evidence", evidence, *approvals[:2])
    assert one_only.code == 1
    assert "must approve" in one_only.err

    live = constitution(*load, "--evidence", evidence, *approvals)
    assert live.code == 0, live.err
    assert live.json["generation"] == 1
    assert live.json["confirmed"] is False

    async def delivered() -> bool:
        return (await worker.release(1)).delivery.delivered_at is not None

    await eventually(delivered, DELIVERED)
    unwatched = constitution(*load, "--evidence", evidence, *approvals, "--confirm")
    assert unwatched.code == 1
    assert "no assessor has signed that every target obeys generation 1" in unwatched.err
    orders: list[str | Path] = []
    for member in ("alva", "bruno"):
        signing = ("--yes", "--key", environment_files.directory / "keys" / f"{member}.tsk")
        ordered = constitution("confirm", "1", "--reason", "every target was looked at", *signing)
        assert ordered.code == 0, ordered.err
        assert "by nobody's watch" in ordered.err
        signed_order = environment_files.directory / f"{member}.order.json"
        signed_order.write_text(ordered.out)
        orders += ["--order", signed_order]
    assert constitution(*load, *orders).code == 2, "an order goes with --confirm"
    repeated = constitution(*load, "--evidence", evidence, *approvals, "--confirm", *orders)
    assert repeated.code == 0, repeated.err
    assert (repeated.json["generation"], repeated.json["event_id"]) == (1, live.json["event_id"])
    assert constitution("show", "1").json["standings"][0]["standing"] == "confirmed"

    now = constitution("current")
    assert now.code == 0, now.err
    assert (now.json["checksum"], now.json["generation"], now.json["verified"]) == (checksum, 1, True)
    table = constitution("releases", "--text")
    assert "1.4.0" in table.out
    assert "confirmed" in table.out
    nothing = constitution("diff", path, "--text")
    assert (nothing.code, nothing.out) == (0, "no difference in meaning\n")

    # Off a terminal nothing is started unasked, and what would be done is shown: here there is nothing to go back to.
    unasked = constitution("rollback", "--reason", "agents refuse legitimate refunds")
    assert (unasked.code, unasked.out) == (2, "")
    assert "undoes       generation 1, 1.4.0, confirmed" in unasked.err
    assert "restores     NOTHING: the constitution is withdrawn" in unasked.err
    assert "--yes" in unasked.err
    for keys, code in (("\x03", 130), ("n\n", 1), ("\x04", 1)):
        asked_for = [sys.executable, "-m", "constitution_client", "rollback", "--reason", "x"]
        async with Terminal(asked_for, _settings(environment_files, constitution_service.url, "")) as terminal:
            await terminal.until("Start this rollback?")
            assert await terminal.answer(keys) == code, terminal.sent
            assert b"Traceback" not in terminal.sent
    planned = constitution("rollback", "--reason", "x", "--bad-generation", "1", "--dry-run")
    assert planned.code == 0, planned.err
    assert (planned.json["bad_generation"], planned.json["withdraws"]) == (1, True)
    other = constitution("rollback", "--reason", "x", "--bad-generation", "7", "--dry-run")
    assert (other.code, other.out) == (1, "")
    assert "there is no generation 7" in other.err

    constitution_service.kill()
    gone = constitution("current")
    assert (gone.code, gone.out) == (3, "")
    assert "CONSTITUTION_SERVICE_URL" in gone.err


async def test_an_author_whose_key_is_on_a_token_asks(
    environment_files: EnvironmentFiles, constitution: Constitution, author: Author
) -> None:
    folder, data = environment_files.directory, document("1.0.0")
    await author.push(data)
    unnamed_author = ("change-request", "--id", "CR-9", "--checksum", checksum_of(data), "--reason", "first")
    unnamed = constitution(*unnamed_author, "--print-statement", "asked")
    assert unnamed.code == 2
    assert "--author" in unnamed.err
    asked = (*unnamed_author, "--author", "mara")
    with hand(environment_files.tsk("mara")) as mara:
        written = constitution(*asked, "--print-statement", "asked")
        assert written.code == 0, written.err
        assert written.json["checksum"] == checksum_of((folder / "asked").read_bytes())
        mara.obey(written.json["sign"], folder)
        elsewhere = mara.sign(_copy(folder / "asked", "another", b"CR-9", b"CR-8"))
    other = constitution(*asked, "--signature", elsewhere)
    assert (other.code, other.out) == (1, "")
    assert "about something else: id" in other.err
    assert constitution("show", "CR-8").code == 1, "nothing was sent"
    assert constitution(*asked, "--signature", "asked.sig").code == 0
    assert constitution("show", "CR-9").json["request"]["author"] == "mara"


async def test_a_board_member_whose_key_is_on_a_token_decides(  # noqa: PLR0915 - one story, told in order
    environment_files: EnvironmentFiles, constitution: Constitution, author: Author
) -> None:
    folder, data, update = environment_files.directory, document("1.0.0"), str(uuid4())
    await author.ask(await author.push(data), "CR-9")
    bound = ("--checksum", checksum_of(data), "--evidence", await author.evidence(data, "CR-9"))
    approve = ("approve", "CR-9", *bound, "--update-id", update, "--yes")
    stub = folder / "keys" / "alva.stub"
    stub.touch(mode=0o600)
    certificate = (folder / "trust" / "certificates" / "alva.asc").read_bytes()
    stub.write_bytes(stub_on_token(environment_files.tsk("alva"), certificate))

    refused = constitution(*approve, "--print", "--key", stub)
    assert refused.code == 1
    assert "is on a token" in refused.err
    assert "use --print-statement" in refused.err
    assert "about to sign" not in refused.err, "it is refused before anything is shown"
    assert constitution(*approve, "--print").code == 2, "nobody signs"

    written = constitution(*approve, "--key", stub, "--print-statement", "decision", "--reason", "seen")
    assert written.code == 0, written.err
    assert "this is a first release" in written.err, "what is to be signed is shown"
    fingerprint = fingerprint_of_key(environment_files.tsk("alva"))
    assert written.json["sign"] == f"gpg --local-user {fingerprint} --detach-sign decision"
    assert "is not overwritten" in constitution(*approve, "--print-statement", "decision").err
    denied = constitution("deny", "CR-9", *bound, "--print-statement", "denial", "--reason", "no")
    assert denied.code == 0, denied.err
    with hand(environment_files.tsk("alva")) as alva:
        alva.obey(written.json["sign"], folder)
        alva.sign(folder / "denial", armor=True)
    with hand(environment_files.tsk("mara")) as mara:
        by_mara = mara.sign(_copy(folder / "decision", "same", b"", b""))
    _copy(folder / "decision", "changed", b"seen", b"SEEN")
    otherwise = ("approve", "CR-9", *bound, "--update-id", str(uuid4()), "--yes")
    for reason, arguments in {
        "no member of the board": (*approve, "--signature", by_mara),
        "does not match the document": (*approve, "--signature", "decision.sig", "--statement", "changed"),
        "about something else: decision, plan": (*approve, "--signature", "denial.asc"),
        "about something else: reason": (*approve, "--signature", "decision.sig", "--reason", "another"),
        "about something else: plan": (*otherwise, "--signature", "decision.sig"),
        "does not say which file": (*approve, "--signature", "decision"),
    }.items():
        refused = constitution(*arguments, "--print")
        assert (refused.out, reason in refused.err) == ("", True), (reason, refused.err)

    approvals: list[str | Path] = []
    for member, by in {"alva": ("--signature", "decision.sig"), "bruno": ("--key", "keys/bruno.tsk")}.items():
        decided = constitution(*approve, "--print", *by)
        assert decided.code == 0, decided.err
        (folder / f"{member}.json").write_text(decided.out)
        approvals += ["--approval", folder / f"{member}.json"]
    load = ("load", *bound, "--change-request", "CR-9", "--reason", "first", "--update-id", update)
    live = constitution(*load, *approvals)
    assert live.code == 0, live.err
    assert constitution("show", "1").json["approvers"] == ["alva", "bruno"]

    ordered = constitution("confirm", "1", "--reason", "looked", "--print-statement", "order", "--key", stub)
    assert ordered.json["step"] == "generation-1", ordered.err
    with hand(environment_files.tsk("alva")) as alva:
        alva.obey(ordered.json["sign"], folder)
    sent = constitution("confirm", "1", "--signature", "order.sig", "--yes")
    assert sent.code == 0, sent.err
    envelope = Envelope.model_validate(sent.json)
    person, predicate = verify_order(envelope, environment_files.trust, datetime.now(UTC))
    assert (person, predicate.order, predicate.update_id, predicate.reason) == ("alva", "confirm", update, "looked")
    other = constitution("confirm", "1", "--signature", "order.sig", "--yes", "--reason", "not looked")
    assert "about something else: reason" in other.err


def _copy(file: Path, name: str, old: bytes, new: bytes) -> Path:
    """Write a copy of a file beside it, with other bytes."""
    copy = file.with_name(name)
    copy.write_bytes(file.read_bytes().replace(old, new))
    return copy


async def test_what_is_wrong_is_refused_with_every_problem_and_the_next_command(
    environment_files: EnvironmentFiles, constitution: Constitution
) -> None:
    good = document("1.0.0")
    path, signature = _signed(environment_files, "good.json", good)

    unsigned = environment_files.directory / "alva.sig"
    unsigned.write_bytes(sign_detached(good, environment_files.tsk("alva")))
    refused = constitution("push", "--path", path, "--signature", unsigned)
    assert (refused.code, refused.out) == (1, "")
    assert "alva is no maintainer" in refused.err
    assert "sign exactly these bytes" in refused.err

    broken = json.loads(good)
    del broken["expires_at"]
    broken["rules"][0]["when"] = "amount >"
    broken["surprise"] = True
    path, signature = _signed(environment_files, "broken.json", json.dumps(broken).encode())
    refused = constitution("push", "--path", path, "--signature", signature)
    assert refused.code == 1
    assert refused.err.count("  - ") >= 2
    answer = constitution("validate", "--path", path, "--signature", signature)
    assert answer.code == 1
    assert answer.json["valid"] is False
    assert len(answer.json["issues"]) >= 2

    for name, data in {
        "deep": b"[" * 5000 + b"]" * 5000,
        "utf8": b'{"version": "\xff"}',
        "twice": b'{"version": "1", "version": "2"}',
        "empty": b"",
    }.items():
        path, signature = _signed(environment_files, f"{name}.json", data)
        refused = constitution("push", "--path", path, "--signature", signature)
        assert (refused.code, refused.out) == (1, ""), name

    (environment_files.directory / "large.json").write_bytes(b" " * 2 * 1024 * 1024)
    refused = constitution("push", "--path", "large.json", "--signature", signature)
    assert refused.code == 1
    assert "larger than" in refused.err

    for arguments in (("show", "7"), ("show", "CR-404"), ("show", "sha256:" + "0" * 64)):
        missing = constitution(*arguments)
        assert (missing.code, missing.out) == (1, "")
        assert "next: " in missing.err


async def test_who_may_not_is_refused_and_told_what_is_missing(
    environment_files: EnvironmentFiles, constitution: Constitution
) -> None:
    path, signature = _signed(environment_files, "good.json", document("1.0.0"))
    push = ("push", "--path", path, "--signature", signature)

    keyless = constitution(*push, CLIENT_KEY_FILE="")
    assert keyless.code == 2
    assert "CLIENT_KEY_FILE" in keyless.err

    target = constitution(*push, CLIENT_KEY_FILE=str(environment_files.key_file("target")))
    assert target.code == 1
    assert "artifacts:write" in target.err

    stranger = EnvironmentFiles.make(environment_files.directory / "stranger")
    refused = constitution(*push, CLIENT_KEY_FILE=str(stranger.key_file("operator")))
    assert refused.code == 1
    assert "token" in refused.err

    by_board = ("change-request", "--id", "CR-1", "--path", path, "--reason", "x")
    refused = constitution(*by_board, "--key", environment_files.directory / "keys" / "alva.tsk")
    assert refused.code == 1
    assert "author" in refused.err

    by_author = ("approve", "CR-1", "--checksum", checksum_of(path.read_bytes()), "--evidence", "sha256:" + "0" * 64)
    refused = constitution(
        *by_author,
        "--update-id",
        str(uuid4()),
        "--print",
        "--yes",
        "--key",
        environment_files.directory / "keys" / "mara.tsk",
    )
    assert refused.code == 1
    assert "no member of the board" in refused.err


async def test_the_client_keeps_its_promises(
    environment_files: EnvironmentFiles, author: Author, constitution_service: Service
) -> None:
    worker = author.worker
    data = document("1.0.0")
    signature = author.sign(data)
    artifact = await worker.push(data, [signature])
    assert await worker.artifact(artifact.checksum) == data
    assert await worker.artifact_signatures(artifact.checksum) == [signature]
    with pytest.raises(NotFoundError):
        await worker.artifact("sha256:" + "0" * 64)

    blob = await author.assessor.put_blob(b"\x00\xff any bytes")
    assert await worker.blob(blob) == b"\x00\xff any bytes"
    record = await author.record(data, "CR-1")
    digest = await author.assessor.put_evidence(record)
    assert await worker.evidence(digest) == record
    envelope = await author.attest(GatePredicate.of(record, digest))
    assert await author.assessor.attestations(evidence=digest) == [envelope]

    assert await worker.current() is None
    assert await worker.lease() is None
    ours, theirs = str(uuid4()), str(uuid4())
    lease = await worker.acquire_lease(
        LeaseRequest(update_id=ours, kind=Kind.UPDATE, workflow_id="ours"), f"{ENVIRONMENT}/{ours}/lease"
    )
    assert await worker.lease() == lease
    with pytest.raises(LeaseHeldError, match="ours"):
        await worker.acquire_lease(LeaseRequest(update_id=theirs, kind=Kind.UPDATE), f"{ENVIRONMENT}/{theirs}/lease")
    late = LoadRequest(
        update_id=ours,
        kind=Kind.UPDATE,
        checksum=artifact.checksum,
        rings=("default",),
        expected_generation=0,
        fencing_token=lease.fencing_token - 1,
        change_request="CR-1",
        reason="late",
        workflow=WorkflowRef(workflow_id="ours", run_id="r"),
    )
    with pytest.raises(LeaseLostError):
        await worker.load(late, f"{ENVIRONMENT}/{ours}/load")
    await worker.release_lease(
        LeaseRelease(update_id=ours, fencing_token=lease.fencing_token), f"{ENVIRONMENT}/{ours}/release"
    )
    assert await worker.lease() is None
    with pytest.raises(InvalidRequestError):
        await worker.acquire_lease(LeaseRequest(update_id=ours, kind=Kind.UPDATE), "no key at all")

    run = WorkflowRef(workflow_id="ours", run_id="r")
    event = AuditEvent(
        id="e-1", update_id=ours, workflow=run, activity="update.rejected", success=False, message="a test"
    )
    await worker.audit(event)
    await worker.audit(event)
    assert (await worker.ready()).status == "ok"

    async with ConstitutionServiceClient(constitution_service.url, None, ENVIRONMENT) as reader:
        assert await reader.artifact(artifact.checksum) == data
        with pytest.raises(ForbiddenError, match="artifacts:write"):
            await reader.push(data, [signature])
    async with ConstitutionServiceClient(
        constitution_service.url, environment_files.key("worker"), "staging"
    ) as elsewhere:
        with pytest.raises(ForbiddenError):
            await elsewhere.push(data, [signature])


async def test_a_dead_service_is_unavailable_within_the_limit_of_repeats(environment_files: EnvironmentFiles) -> None:
    async with ConstitutionServiceClient(
        f"http://127.0.0.1:{free_port()}", environment_files.key("worker"), ENVIRONMENT
    ) as client:
        with pytest.raises(UnavailableError, match="did not answer GET /v1/constitution"):
            await client.current()


@pytest.mark.parametrize("url", ["", "localhost:1", "ftp://x", "http://", "file:///etc/passwd", "http://[::1"])
def test_an_address_that_is_none_is_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(InvalidRequestError, match="is not the address of constitution-service"):
        ConstitutionServiceClient(url, None, ENVIRONMENT)
