"""Nothing untested goes live, and nothing unwatched is confirmed: an assessor must have signed that it saw it."""

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from constitution.api import EvidenceRecord, Lease, LoadRequest
from constitution.checksum import checksum_of
from constitution.environment import Strategy
from constitution.errors import ConflictError, EvidenceError, ForbiddenError, UntrustedError
from constitution.release import Envelope, Kind, Standing, Verdict
from constitution.trust.attestation import GatePredicate, SyncPredicate
from constitution.trust.fleet import FleetReport, TargetReport, listing
from constitution.trust.hold_rules import step_of_watch
from services.constitution_service.artifacts.attestations import MAX_ATTESTATIONS
from signatures.attestations import Attestation, sign_attestation
from signatures.dsse import envelope_digest
from signatures.tokens import ClientKey
from tests.resources import Database
from tests.world.author import Author
from tests.world.documents import following
from tests.world.files import ENVIRONMENT

MISSING = "sha256:" + "0" * 64
WATCHED = Strategy(watch_seconds=60)


async def record_of(author: Author, document: bytes, change_request: str, update_id: str) -> EvidenceRecord:
    """Evidence that is right in everything, and that nobody has signed."""
    said = json.loads(document)
    return EvidenceRecord(
        environment=ENVIRONMENT,
        checksum=checksum_of(document),
        version=said["version"],
        previous=said["previous"] and said["previous"]["checksum"],
        change_request=change_request,
        gate_digest=checksum_of(b"gate"),
        suites=tuple(
            [EvidenceRecord.Suite.model_validate(await author.suite(name, document)) for name in ("policy", "chaos")]
        ),
        update_id=update_id,
    )


async def invented(author: Author, *, expected_generation: int = 0) -> tuple[LoadRequest, GatePredicate, bytes]:
    """A load with everything the board signs, on evidence that no gate has made."""
    document = author.draft("1.0.0")
    checksum = await author.push(document)
    change_request, update_id = await author.ask(checksum), str(uuid4())
    record = await record_of(author, document, change_request, update_id)
    digest = await author.assessor.put_evidence(record)  # also with the assessor's token, if that was stolen alone
    lease = await author.lease(update_id)
    request = (await author.prepared(document, expected_generation=expected_generation)).model_copy(
        update={
            "update_id": update_id,
            "change_request": change_request,
            "test_evidence": digest,
            "approvals": author.approvals(
                document, change_request=change_request, evidence=digest, plan=author.plan(update_id)
            ),
            "fencing_token": lease.fencing_token,
        }
    )
    return request, GatePredicate.of(record, digest), document


def signed(predicate: Attestation, key: ClientKey) -> Envelope:
    return sign_attestation(predicate, key.id, key.private_key)


async def test_a_worker_may_store_neither_evidence_nor_attestations(author: Author) -> None:
    document = author.draft("1.0.0")
    record = await record_of(author, document, await author.ask(await author.push(document)), str(uuid4()))
    with pytest.raises(ForbiddenError, match="evidence:write"):
        await author.worker.put_evidence(record)
    with pytest.raises(ForbiddenError, match="evidence:write"):
        await author.worker.put_blob(b"a watch that nobody watched")
    envelope = signed(GatePredicate.of(record, MISSING), author.files.key("assessor"))
    with pytest.raises(ForbiddenError, match="evidence:write"):
        await author.worker.put_attestation(envelope)


async def test_only_an_assessors_signature_is_stored(author: Author) -> None:
    _, said, _ = await invented(author)
    for client in ("worker", "assessor-client", "constitution-service"):
        key = author.files.key(client)
        for name in (client, "assessor"):  # under its own name, and under the assessor's
            with pytest.raises(UntrustedError):
                await author.assessor.put_attestation(sign_attestation(said, name, key.private_key))
    elsewhere = said.model_copy(update={"environment": "production"})
    with pytest.raises(UntrustedError, match="production"):
        await author.assessor.put_attestation(signed(elsewhere, author.files.key("assessor")))


async def test_a_load_needs_the_gates_attestation_of_this_very_evidence(author: Author) -> None:
    request, said, document = await invented(author)
    other = author.draft("1.0.1")
    foreign: Sequence[GatePredicate] = (
        said.model_copy(update={"checksum": checksum_of(other)}),  # of another document
        said.model_copy(update={"change_request": "CR-other"}),
        said.model_copy(update={"update_id": str(uuid4())}),  # of an earlier run
        said.model_copy(update={"result": "FAILED"}),
        said.model_copy(update={"suites": said.suites[:1]}),
    )
    for predicate in (None, *foreign):
        if predicate is not None:
            await author.attest(predicate)
        with pytest.raises(EvidenceError) as refused:
            await author.load(request, f"load-{uuid4().hex}")
        assert [issue.code for issue in refused.value.issues] == ["evidence-unattested"]
    genuine = await author.evidence(document, request.change_request or "", update_id=request.update_id, diff=("a",))
    assert genuine != request.test_evidence  # attested, and not what the board signed
    with pytest.raises(EvidenceError):
        await author.load(request, f"load-{uuid4().hex}")

    await author.attest(said)
    assert (await author.load(request)).generation == 1


async def test_an_attestation_written_into_the_database_counts_only_with_its_signature(
    author: Author, database: Database
) -> None:
    request, said, _ = await invented(author)
    forged = signed(said, author.files.key("worker"))
    renamed = sign_attestation(said, "assessor", author.files.key("worker").private_key)
    connection = await asyncpg.connect(database.url)
    try:
        for envelope in (forged, renamed):
            await connection.execute(
                "INSERT INTO attestations (environment, digest, evidence, envelope) VALUES ($1, $2, $3, $4)",
                ENVIRONMENT,
                envelope_digest(envelope),
                request.test_evidence,
                envelope.model_dump_json(),
            )
    finally:
        await connection.close()
    with pytest.raises(EvidenceError):
        await author.load(request, "forged")
    await author.attest(said)
    assert (await author.load(request)).generation == 1


async def live(author: Author, **changes: Any) -> tuple[bytes, Lease]:
    """Generation 2, unconfirmed, whose board signed a watch of a minute."""
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    document = author.draft("1.1.0", following(first))
    request = await author.prepared(document, expected_generation=1)
    plan = author.plan(request.update_id, watch=WATCHED.model_copy(update=changes))
    approvals = author.approvals(
        document, change_request=request.change_request, evidence=request.test_evidence, plan=plan
    )
    lease = await author.lease(request.update_id)
    await author.load(request.model_copy(update={"fencing_token": lease.fencing_token, "approvals": approvals}))
    return document, lease


async def refused(author: Author, lease: Lease, why: str) -> None:
    with pytest.raises(EvidenceError) as error:
        await author.stand(2, Standing.CONFIRMED, lease, f"try-{uuid4().hex[:8]}", attested=False)
    assert why in error.value.diagnostics()
    assert (await author.worker.release(2)).standing is None


async def test_a_release_is_confirmed_only_where_an_assessor_saw_everybody_obey(author: Author) -> None:
    _, lease = await live(author, watch_seconds=0)
    await refused(author, lease, "every target obeys generation 2")
    silent = TargetReport(id="engine", state="unreachable", generation=None, checksum=None)
    wrong: Sequence[tuple[SyncPredicate, str]] = (
        ((await author.synced(1)).model_copy(update={"generation": 2}), "update id"),  # of another release, renamed
        (await author.synced(2, checksum=MISSING), "another document"),
        (await author.synced(2, targets=(silent,)), "engine is unreachable"),
        (await author.synced(2, fleet=FleetReport.of_listing(listing((silent,)))), "it is of 1 targets"),
    )
    for predicate, why in wrong:
        await author.attest(predicate)
        await refused(author, lease, why)
    await author.attest(await author.synced(2))
    after = await author.stand(2, Standing.CONFIRMED, lease, attested=False)
    assert (after.standing, after.standings[-1].verdict) == (Standing.CONFIRMED, Verdict.NOT_WATCHED)


async def test_a_watched_release_is_confirmed_only_by_a_watch_as_the_board_signed_it(author: Author) -> None:
    _, lease = await live(author)
    await author.attest(await author.synced(2))
    await refused(author, lease, "watched generation 2 as the board wished")
    release = await author.worker.release(2)
    blob = await author.assessor.put_blob(b'{"samples": []}')
    whole = {"strategy": WATCHED, "ends_at": release.effective_at + timedelta(seconds=60)}
    wrong: Sequence[tuple[dict[str, Any], str]] = (
        ({"strategy": Strategy(watch_seconds=0)}, "another strategy"),
        ({"strategy": WATCHED.model_copy(update={"alpha": 0.4})}, "another strategy"),
        ({"update_id": str(uuid4())}, "update id"),
        ({"published_at": release.effective_at + timedelta(seconds=1)}, "time of publish"),
        ({"test_evidence": MISSING}, "another expected change"),
        ({"ends_at": release.effective_at + timedelta(seconds=30)}, "before its strategy's end"),
        ({"evidence": MISSING}, "the store has not got the evidence that the watch's ok rests on"),
    )
    for changes, why in wrong:
        await author.attest(await author.watched(2, changes.pop("evidence", blob), **{**whole, **changes}))
        await refused(author, lease, why)
    await author.attest(await author.watched(2, blob, **whole))
    after = await author.stand(2, Standing.CONFIRMED, lease, attested=False)
    assert (after.standing, after.standings[-1].verdict) == (Standing.CONFIRMED, Verdict.OK)


async def test_an_anomaly_that_was_seen_is_not_outvoted_by_a_watch_that_saw_nothing(author: Author) -> None:
    _, lease = await live(author)
    await author.attest(await author.synced(2))
    release = await author.worker.release(2)
    blob = await author.assessor.put_blob(b'{"samples": []}')
    whole = {"strategy": WATCHED, "ends_at": release.effective_at + timedelta(seconds=60)}
    await author.attest(await author.watched(2, blob, **whole, verdict=Verdict.ANOMALY))
    await author.attest(await author.watched(2, blob, **whole))
    await refused(author, lease, "says anomaly, which its strategy rolls back")


async def test_an_anomaly_counts_also_when_what_it_rests_on_was_deleted(author: Author) -> None:
    _, lease = await live(author)
    await author.attest(await author.synced(2))
    release = await author.worker.release(2)
    blob = await author.assessor.put_blob(b'{"samples": []}')
    whole = {"strategy": WATCHED, "ends_at": release.effective_at + timedelta(seconds=60)}
    await author.attest(await author.watched(2, blob, **whole))
    await author.attest(await author.watched(2, MISSING, **whole, verdict=Verdict.ANOMALY))
    await refused(author, lease, "says anomaly, which its strategy rolls back")


async def test_whoever_has_the_assessor_look_for_ever_fills_nothing(author: Author) -> None:
    _, lease = await live(author)
    release = await author.worker.release(2)
    blob = await author.assessor.put_blob(b'{"samples": []}')
    await author.attest(await author.synced(2))
    whole = await author.watched(2, blob, strategy=WATCHED, ends_at=release.effective_at + timedelta(seconds=60))
    await author.attest(whole)
    for number in range(2, MAX_ATTESTATIONS):
        early = {"ends_at": release.effective_at + timedelta(seconds=number / 100)}
        await author.attest(await author.watched(2, blob, strategy=WATCHED, **early))
    with pytest.raises(ConflictError, match=f"there are {MAX_ATTESTATIONS} attestations about generation 2"):
        await author.attest(await author.watched(2, blob, strategy=WATCHED, verdict=Verdict.NO_DATA))
    await author.attest(whole)
    assert len(await author.operator.attestations(generation=2)) == MAX_ATTESTATIONS
    after = await author.stand(2, Standing.CONFIRMED, lease, attested=False)
    assert after.standings[-1].verdict is Verdict.OK


async def test_a_longer_watch_does_not_outvote_a_whole_one_that_its_strategy_rolls_back(author: Author) -> None:
    _, lease = await live(author)
    await author.attest(await author.synced(2))
    release = await author.worker.release(2)
    blob = await author.assessor.put_blob(b'{"samples": []}')
    for seconds, verdict in ((60, Verdict.NO_DATA), (61, Verdict.OK)):
        ends_at = release.effective_at + timedelta(seconds=seconds)
        await author.attest(await author.watched(2, blob, strategy=WATCHED, ends_at=ends_at, verdict=verdict))
    await refused(author, lease, "says no_data, which its strategy rolls back")


async def test_an_anomaly_from_after_the_next_release_poisons_nothing(author: Author) -> None:
    await live(author)
    release = await author.worker.release(2)
    undo = await author.lease(release.update_id, Kind.ROLLBACK)
    first = (await author.worker.release(1)).checksum
    assert first is not None
    await author.load(author.undoing(undo, 2, first), "undo")
    replaced = (await author.worker.release(3)).effective_at
    blob = await author.assessor.put_blob(b'{"samples": []}')
    for decided_at in (replaced + timedelta(seconds=1), release.effective_at):
        attested = await author.watched(
            2, blob, strategy=WATCHED, verdict=Verdict.ANOMALY, decided_at=decided_at, ends_at=decided_at
        )
        if decided_at > replaced:
            await author.attest(attested)
            with pytest.raises(EvidenceError, match="poisoned only by an anomaly"):
                await author.stand(2, Standing.POISONED, undo, "late", attested=False)
    await author.attest(attested)
    after = await author.stand(2, Standing.POISONED, undo, attested=False)
    assert after.standing is Standing.POISONED


async def test_what_the_strategy_holds_for_a_person_is_confirmed_only_by_a_resume_that_names_this_watch(
    author: Author,
) -> None:
    _, lease = await live(author)
    await author.attest(await author.synced(2))
    release = await author.worker.release(2)
    await author.held_and_resumed(lease.update_id)  # before any watch has said a word
    await author.worker.accept_order(author.order_request(lease.update_id, "resume", step=step_of_watch(MISSING)))
    blobs = [await author.assessor.put_blob(f'{{"samples": [{number}]}}'.encode()) for number in range(2)]
    for number, blob in enumerate(blobs):  # the second looked longer, and is not what the first answer was given for
        ends_at = release.effective_at + timedelta(seconds=60 + number)
        said = await author.watched(2, blob, strategy=WATCHED, ends_at=ends_at, verdict=Verdict.CANNOT_TELL)
        await author.attest(said)
        await refused(author, lease, "cannot_tell, and nobody has resumed it")
        resume = author.order_request(lease.update_id, "resume", step=step_of_watch(blob))
        await author.worker.accept_order(resume)
    after = await author.stand(2, Standing.CONFIRMED, lease, attested=False)
    assert (after.standing, after.standings[-1].verdict) == (Standing.CONFIRMED, Verdict.CANNOT_TELL)


async def test_what_an_assessor_saw_an_anomaly_of_is_never_only_withdrawn(author: Author) -> None:
    """Whoever records the undo knows of no anomaly, or does not say so."""
    await live(author)
    release = await author.worker.release(2)
    undo = await author.lease(release.update_id, Kind.ROLLBACK)
    first = (await author.worker.release(1)).checksum
    await author.load(author.undoing(undo, 2, first), "undo")
    blob = await author.assessor.put_blob(b'{"samples": []}')
    said = await author.watched(2, blob, strategy=WATCHED, verdict=Verdict.ANOMALY, ends_at=release.effective_at)
    await author.attest(said)
    after = await author.stand(2, Standing.WITHDRAWN, undo)
    assert (after.standing, after.standings[-1].verdict) == (Standing.POISONED, Verdict.ANOMALY)


async def test_orders_to_promote_stand_for_the_watch_and_orders_to_confirm_for_everything(author: Author) -> None:
    _, lease = await live(author)
    promote = await author.orders(2, "promote", members=("alva",), step=None)
    with pytest.raises(EvidenceError, match="every target obeys"):
        await author.stand(2, Standing.CONFIRMED, lease, "unsynced", attested=False, orders=promote)
    for number, orders in enumerate(
        (
            await author.orders(2, "confirm", members=("alva",)),
            await author.orders(1, "confirm"),
            await author.orders(2, "poison"),
            await author.orders(2, "promote", members=("mara",), step=None),
        )
    ):
        with pytest.raises(EvidenceError):
            await author.stand(2, Standing.CONFIRMED, lease, f"wrong-{number}", attested=False, orders=orders)
    await author.attest(await author.synced(2))
    after = await author.stand(2, Standing.CONFIRMED, lease, attested=False, orders=promote)
    assert after.standings[-1].verdict is Verdict.CANNOT_TELL


async def test_enough_orders_to_confirm_need_no_assessor(author: Author) -> None:
    _, lease = await live(author)
    orders = await author.orders(2, "confirm")
    after = await author.stand(2, Standing.CONFIRMED, lease, attested=False, orders=orders)
    assert (after.standing, after.standings[-1].verdict) == (Standing.CONFIRMED, Verdict.NOT_WATCHED)


async def test_attestations_are_there_for_everybody_to_verify(author: Author) -> None:
    await live(author, watch_seconds=0)
    envelope = await author.attest(await author.synced(2))
    assert await author.attest(await author.synced(2)) == envelope
    assert await author.operator.attestations(generation=2) == [envelope]
    evidence = (await author.worker.release(2)).evidence
    assert len(await author.operator.attestations(evidence=evidence)) == 1
