"""The receipt of a release: sealed once by a real constitution-service, over what the archive holds."""

import asyncio
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from temporalio.client import Client

from activities.archive import ArchiveInput, HistoriesInput
from constitution.archive_manifest import listing_bytes
from constitution.archived_outcome import ArchivedOutcome, contradictions
from constitution.checksum import checksum_of
from constitution.errors import InvalidRequestError, NotFoundError, ReceiptSealedError, UnsettledError
from constitution.receipt import (
    MANIFEST,
    MANIFEST_SIGNATURE,
    RECEIPT,
    RECEIPT_MANIFEST,
    ArchivedFile,
    ReceiptManifest,
    ReceiptRequest,
)
from constitution.receipt_story import story
from constitution.release import Kind, Standing, Verdict
from constitution.trust.fleet import LISTED, FleetReport, TargetReport, listing
from constitution.trust.trust_policy import TrustPolicy
from constitution_client.main import run as command
from signatures.dsse import envelope_digest
from signatures.receipt_report import ReceiptLines
from signatures.receipt_verify import (
    BrokenFileError,
    Neighbour,
    check_files,
    check_writer,
    folder_name,
    open_manifest,
    open_receipt,
    verify_folder,
)
from signatures.receipts import manifest_bytes, receipt_bytes, verify_receipt
from tests.integration.activity_support import Records, closed_run, run
from tests.integration.disaster import Disaster
from tests.resources import Database
from tests.world.author import Author
from tests.world.documents import following
from tests.world.files import CHECKOUT, ENVIRONMENT


def listed(generation: int, /, **changes: Any) -> ReceiptRequest:
    file = ArchivedFile(path="README.md", sha256=checksum_of(b"x"), size=1)
    whole: dict[str, Any] = {"environment": ENVIRONMENT, "generation": generation, "files": (file,)}
    return ReceiptRequest(manifest=ReceiptManifest(**whole | changes))


async def test_a_receipt_is_sealed_once_over_what_the_service_knows(author: Author, database: Database) -> None:
    result, lease = await author.publish(author.draft("1.0.0"), expected_generation=0)
    release = await author.delivered(1)
    with pytest.raises(UnsettledError, match="nothing is recorded"):
        await author.worker.seal_receipt(1, listed(1))
    with pytest.raises(NotFoundError):
        await author.worker.receipt(1)
    await author.stand(1, Standing.CONFIRMED, lease)
    await author.release_lease(lease)
    for wrong in (listed(2), listed(1, environment="staging")):
        with pytest.raises(InvalidRequestError, match="the manifest is of"):
            await author.worker.seal_receipt(1, wrong)
    with pytest.raises(NotFoundError):
        await author.worker.seal_receipt(7, listed(7))
    asked = [author.worker.seal_receipt(1, listed(1)) for _ in range(3)]
    first, *same = await asyncio.gather(*asked)
    assert same == [first, first]
    assert await author.worker.receipt(1) == first
    other = ArchivedFile(path="README.md", sha256=checksum_of(b"y"), size=1)
    with pytest.raises(ReceiptSealedError, match="over other files"):
        await author.worker.seal_receipt(1, listed(1, files=(other,)))
    receipt = verify_receipt(first.envelope, author.files.trust)
    assert (receipt.sequence, receipt.previous_receipt, receipt.generation) == (1, None, 1)
    assert (receipt.checksum, receipt.version, receipt.statement) == (
        release.checksum,
        "1.0.0",
        envelope_digest(release.statement),
    )
    assert [fact.person for fact in receipt.signatures] == ["mara"]
    assert [(fact.person, fact.decision) for fact in receipt.decisions] == [("alva", "approve"), ("bruno", "approve")]
    assert [fact.sha256 for fact in receipt.decisions] == [envelope_digest(one) for one in release.approvals]
    assert receipt.change_request is not None
    assert (receipt.change_request.id, receipt.change_request.author) == (release.change_request, "mara")
    assert {fact.what for fact in receipt.attestations} >= {"gate", "sync"}
    assert receipt.targets is not None
    assert receipt.events == release.delivery.events
    assert [stood.standing for stood in receipt.standings] == [Standing.CONFIRMED]
    assert receipt.archive.reported_by == "worker"
    assert receipt.archive.manifest == checksum_of(manifest_bytes(first.manifest))
    second = await author.confirmed(author.draft("1.1.0", following(result)), expected_generation=1)
    await author.delivered(second.generation)
    next_one = verify_receipt((await author.worker.seal_receipt(2, listed(2))).envelope, author.files.trust)
    assert (next_one.sequence, next_one.previous_receipt) == (2, checksum_of(receipt_bytes(first.envelope)))
    owner = await asyncpg.connect(database.owner_url)
    try:
        said = await owner.fetch("SELECT value FROM outbox WHERE value LIKE '%receipt.sealed%' ORDER BY id")
    finally:
        await owner.close()
    told = [json.loads(row["value"])["unmapped"] for row in said]
    assert [(one["sequence"], one["sha256"]) for one in told] == [
        (1, next_one.previous_receipt),
        (2, checksum_of(receipt_bytes((await author.worker.receipt(2)).envelope))),
    ], "each once"


def folder_of(records: Records, name: str) -> dict[str, bytes]:
    """Every file of a release's folder in the working tree."""
    root = records.path / "docs" / "legal" / "constitution" / name
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def no_flipped_byte_passes(files: dict[str, bytes], trust: TrustPolicy) -> None:
    """Every byte of receipt and manifest, 1,000 positions in each other file; a file or a line less, a file more."""
    receipt = open_receipt(files[RECEIPT], (trust,))
    for at in range(len(files[RECEIPT])):
        with pytest.raises(BrokenFileError):
            open_receipt(flipped(files[RECEIPT], at), (trust,))
    for at in range(len(files[RECEIPT_MANIFEST])):
        with pytest.raises(BrokenFileError) as broken:
            open_manifest({**files, RECEIPT_MANIFEST: flipped(files[RECEIPT_MANIFEST], at)}, receipt)
        assert broken.value.offset == at, "the files say what it must be"
    manifest = open_manifest(files, receipt)
    seeded = random.Random(7)  # noqa: S311 - positions of a test
    for at in range(0, len(files[MANIFEST]), 7):
        lines = ReceiptLines()
        check_files({**files, MANIFEST: flipped(files[MANIFEST], at)}, manifest, {}, lines)
        assert [(line.what, line.offset) for line in lines.found if not line.ok] == [(MANIFEST, at)]
    for at in range(len(files[MANIFEST_SIGNATURE])):
        lines = ReceiptLines()
        wrong = {**files, MANIFEST_SIGNATURE: flipped(files[MANIFEST_SIGNATURE], at)}
        check_writer(wrong, folder_name(receipt), (trust,), lines)
        assert [line.ok for line in lines.found] == [False], at
    for file in manifest.files:  # each by itself: what is checked of a file does not depend on the others
        one = manifest.model_copy(update={"files": (file,)})
        for _ in range(1000):
            data, lines = flipped(files[file.path], seeded.randrange(file.size)), ReceiptLines()
            check_files({file.path: data, MANIFEST: listing_bytes({file.path: file.sha256})}, one, {}, lines)
            assert [line.what for line in lines.found if not line.ok] == [file.path, MANIFEST]
    for wrong, named in (
        ({path: data for path, data in files.items() if path != "document.json"}, "document.json"),
        ({**files, "approvals/99.dsse.json": files["approvals/01.dsse.json"]}, "approvals/99.dsse.json"),
        ({**files, "README.md": files["README.md"].replace(b"\n", b"", 1)}, "README.md"),
    ):
        found = verify_folder(wrong, trust)
        assert not found.valid
        assert named in [line.what for line in found.lines if not line.ok], found.text()


def typed_by_a_person(archive: Path, trust: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The verbs, on the whole archive, with a head; then with a byte more in one file."""
    root = archive / "docs" / "legal" / "constitution"
    head = archive.parent / "newest.json"
    head.write_bytes((root / "1.0.0-3" / RECEIPT).read_bytes())
    asked = (str(root), "--trust", str(trust))
    assert command(["receipt", "verify", *asked, "--head", str(head), "--text"]) == 0
    said = capsys.readouterr().out
    assert said.count("  valid\n") == 2
    assert "✗" not in said
    assert command(["receipt", "show", *asked, "--text"]) == 0
    told = capsys.readouterr().out
    for sentence in (
        "mara asked for version 1.1.0 as ",
        "mara signed the document sha256:",
        "alva decided: approve.",
        "generation 2 put in force version 1.1.0",
        "The watch came to ok on ",
        "olga ordered hold on ",
        "generation 3 put in force version 1.0.0, which had been confirmed before",
        "It undid generation 2 (1.1.0).",
        "Sealed on ",
    ):
        assert sentence in told, told
    document = root / "1.1.0-2" / "document.json"
    document.write_bytes(document.read_bytes() + b"\n")
    assert command(["receipt", "verify", *asked, "--text"]) == 1
    said = capsys.readouterr().out
    assert "✗ document.json: has " in said
    assert "✗ manifest.json: is not the list of the files that are here, first at byte " in said
    assert command(["receipt", "verify", str(archive.parent / "nothing"), "--trust", str(trust)]) == 1
    capsys.readouterr()


def with_the_network_off(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a network namespace of its own: no interface is up there, not even loopback."""
    program = (
        "import errno, socket\n"
        "try:\n    socket.create_connection(('127.0.0.1', 9), 1)\n"
        "except OSError as error:\n    assert error.errno == errno.ENETUNREACH, error\n"
        "else:\n    raise SystemExit('there is a network')\n"
        "from constitution_client.__main__ import main\nmain()\n"
    )
    return subprocess.run(  # noqa: S603 - ourselves
        ["unshare", "--map-root-user", "--net", sys.executable, "-c", program, *arguments],  # noqa: S607 - util-linux
        check=False,
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
    )


async def test_an_archived_release_verifies_offline_and_no_changed_byte_does(
    *,
    author: Author,
    records: Records,
    temporal_client: Client,
    namespace: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trust = author.files.trust
    base = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    _, lease = await author.publish(author.draft("1.1.0", following(base)), expected_generation=1)
    release = await author.delivered(2)
    await author.held_and_resumed(release.update_id)
    own = await closed_run(temporal_client, namespace, release.update_id)
    histories = HistoriesInput(environment=ENVIRONMENT, generation=2, runs=(own,))
    early = await run(records.archive.archive_histories, histories)
    assert "receipt.json" not in folder_of(records, "1.1.0-2"), "nothing is recorded of what became of it"
    await author.stand(2, Standing.CONFIRMED, lease)
    watch = await author.anomaly(2, verdict=Verdict.OK)
    await run(
        records.archive.archive_release,
        ArchiveInput(environment=ENVIRONMENT, generation=2, outcome="completed", watch_evidence=watch),
    )
    archived = await run(records.archive.archive_histories, histories)
    assert archived.commit != early.commit
    assert await run(records.archive.archive_histories, histories) == archived, "no commit was made"
    files = folder_of(records, "1.1.0-2")
    report = verify_folder(files, trust, name="1.1.0-2")
    assert report.valid, report.text()
    said = "\n".join(report.text())
    for expected in (
        "mara signed the document",
        "alva signed: approve",
        "saw the sync",
        "olga ordered: hold",
        "histories/",
    ):
        assert expected in said, said

    await asyncio.to_thread(no_flipped_byte_passes, files, trust)

    undo = await author.lease(str(uuid4()), Kind.ROLLBACK)
    await author.ordered(undo.update_id, 2)
    restored = await author.load(author.undoing(undo, 2, base.checksum), step="restore")
    await author.delivered(restored.generation)
    await author.stand(2, Standing.WITHDRAWN, undo)
    await author.stand(3, Standing.CONFIRMED, undo)
    for generation, outcome in ((2, "rolled_back"), (3, "restored")):
        await run(
            records.archive.archive_release,
            ArchiveInput(environment=ENVIRONMENT, generation=generation, outcome=outcome),
        )
    undone = verify_folder(folder_of(records, "1.1.0-2"), trust)
    assert [line.what for line in undone.lines if not line.ok] == [
        "audit-head-rolled_back.json",
        "outcome-rolled_back.json",
    ], "no receipt lists them yet"
    run_of_undo = await closed_run(temporal_client, namespace, undo.update_id)
    await run(
        records.archive.archive_histories,
        HistoriesInput(environment=ENVIRONMENT, generation=3, runs=(run_of_undo,)),
    )
    whole = {name: folder_of(records, name) for name in ("1.1.0-2", "1.0.0-3")}
    beside = {n: Neighbour(n, f[RECEIPT], f[RECEIPT_MANIFEST]) for n, f in whole.items()}
    newest = whole["1.0.0-3"][RECEIPT]
    for name, held in whole.items():
        others = tuple(one for folder, one in beside.items() if folder != name)
        report = verify_folder(held, trust, neighbours=others, head=newest)
        assert report.valid, report.text()
    assert open_receipt(newest, (trust,)).undoes is not None
    typed_by_a_person(records.path, author.files.directory / "trust" / "trust.toml", capsys)
    replayed = verify_folder({**whole["1.0.0-3"], RECEIPT: files[RECEIPT]}, trust, neighbours=(beside["1.1.0-2"],))
    assert not replayed.valid, "an older receipt in place of the newest"
    cut = verify_folder(files, trust, head=newest)
    assert [line.what for line in cut.lines if not line.ok] == ["head"], "the newest release was taken out"
    mixed = verify_folder({**whole["1.0.0-3"], "document.json": files["document.json"]}, trust)
    assert "document.json" in [line.what for line in mixed.lines if not line.ok], "a file of another release"


async def test_after_an_older_backup_receipts_go_on_behind_the_stores_newest(disaster: Disaster) -> None:
    author = disaster.author
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    second = await author.confirmed(author.draft("1.1.0", following(first)), expected_generation=1)
    for generation in (1, 2):
        await author.delivered(generation)
    kept = await author.worker.seal_receipt(1, listed(1))
    await disaster.back_up()
    lost = await author.worker.seal_receipt(2, listed(2))
    disaster.service.kill()
    await disaster.restore()
    await disaster.service.start().ready()
    with pytest.raises(NotFoundError):
        await author.worker.receipt(2)

    third = await author.confirmed(author.draft("1.2.0", following(second)), expected_generation=2)
    await author.delivered(third.generation)
    after = verify_receipt((await author.worker.seal_receipt(3, listed(3))).envelope, author.files.trust)
    assert (after.sequence, after.previous_receipt) == (3, checksum_of(receipt_bytes(lost.envelope))), "no fork, no gap"
    assert await author.worker.seal_receipt(2, listed(2)) == lost, "a release has one receipt, also after a loss"
    other = ArchivedFile(path="README.md", sha256=checksum_of(b"y"), size=1)
    with pytest.raises(ReceiptSealedError, match="over other files"):
        await author.worker.seal_receipt(2, listed(2, files=(other,)))
    assert await author.worker.receipt(1) == kept


async def test_a_stranger_verifies_a_receipt_with_the_network_off(
    author: Author, records: Records, temporal_client: Client, namespace: str
) -> None:
    alone = await asyncio.to_thread(subprocess.call, ("unshare", "--map-root-user", "--net", "true"))
    assert alone == 0, "this kernel gives this user no network namespace: the network cannot be taken away here"
    await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    release = await author.delivered(1)
    await run(records.archive.archive_release, ArchiveInput(environment=ENVIRONMENT, generation=1, outcome="completed"))
    own = await closed_run(temporal_client, namespace, release.update_id)
    await run(records.archive.archive_histories, HistoriesInput(environment=ENVIRONMENT, generation=1, runs=(own,)))
    folder = records.path / "docs" / "legal" / "constitution" / "1.0.0-1"
    trust = author.files.directory / "trust" / "trust.toml"
    asked = ("receipt", "verify", str(folder), "--trust", str(trust), "--text")
    ran = await asyncio.to_thread(with_the_network_off, *asked)
    assert (ran.returncode, ran.stdout.splitlines()[-1].strip()) == (0, "valid"), ran.stdout + ran.stderr
    assert "✓ outcome-completed.json: completed" in ran.stdout
    statement = folder / "release-statement.json"
    statement.write_bytes(flipped(statement.read_bytes(), 100))
    ran = await asyncio.to_thread(with_the_network_off, *asked)
    assert (ran.returncode, "✗ release-statement.json: was changed" in ran.stdout) == (1, True), ran.stdout


async def test_an_outcome_that_the_worker_made_up_contradicts_the_receipt_that_lists_it(
    author: Author, records: Records, temporal_client: Client, namespace: str
) -> None:
    """Whoever stole the worker writes the file, and has the receipt sealed over it."""
    await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    release = await author.delivered(1)
    await run(records.archive.archive_release, ArchiveInput(environment=ENVIRONMENT, generation=1, outcome="completed"))
    folder = "docs/legal/constitution/1.0.0-1"
    said = ArchivedOutcome.model_validate_json(await records.repository.read(f"{folder}/outcome-completed.json") or b"")
    told = said.model_copy(update={"approvers": ("alva", "mara")}).model_dump_json().encode()
    undone = said.model_copy(update={"outcome": "rolled_back"}).model_dump_json().encode()
    await records.repository.commit(
        {f"{folder}/outcome-completed.json": told, f"{folder}/outcome-rolled_back.json": undone},
        change_log_row=None,
        message="made up",
        manifest=folder,
    )
    own = await closed_run(temporal_client, namespace, release.update_id)
    await run(records.archive.archive_histories, HistoriesInput(environment=ENVIRONMENT, generation=1, runs=(own,)))
    files = folder_of(records, "1.0.0-1")
    wrong = [line.message for line in verify_folder(files, author.files.trust).lines if not line.ok]
    assert wrong == ["outcome-completed.json says otherwise than the receipt: who approved"]
    receipt = open_receipt(files[RECEIPT], (author.files.trust,))
    for changes, differs in (
        ({"reason": "all is well"}, ("the reason",)),
        ({"verdict": Verdict.ANOMALY}, ("the verdict",)),
        ({"outcome": "rolled_back"}, ("the outcome rolled_back, which no standing of the receipt is",)),
        ({}, ()),
    ):
        assert contradictions(said.model_copy(update=changes), receipt) == differs


async def test_a_receipt_of_a_large_fleet_names_it_by_digest_and_the_archive_lists_it(
    *, author: Author, records: Records, temporal_client: Client, namespace: str
) -> None:
    trust = author.files.trust
    _, lease = await author.publish(author.draft("1.0.0"), expected_generation=0)
    release = await author.delivered(1)
    await author.stand(1, Standing.CONFIRMED, lease)
    obey = [
        TargetReport(id=f"engine-{n}", state="converged", generation=1, checksum=release.checksum)
        for n in range(LISTED)
    ]
    silent = TargetReport(id="engine-silent", state="unreachable", generation=None, checksum=None)
    data = listing((*obey, silent))
    await author.assessor.put_blob(data)
    await author.attest(await author.synced(1, targets=(silent,), fleet=FleetReport.of_listing(data)))
    await run(records.archive.archive_release, ArchiveInput(environment=ENVIRONMENT, generation=1, outcome="completed"))
    own = await closed_run(temporal_client, namespace, release.update_id)
    await run(records.archive.archive_histories, HistoriesInput(environment=ENVIRONMENT, generation=1, runs=(own,)))
    files = folder_of(records, "1.0.0-1")
    (path,) = [path for path in files if path.startswith("evidence/targets-")]
    assert files[path] == data
    report = verify_folder(files, trust)
    assert report.valid, report.text()
    said = "\n".join(report.text())
    assert f"{LISTED} of {LISTED + 1} targets obeyed; {LISTED + 1} of them are listed in evidence/" in said
    told = "\n".join(story(open_receipt(files[RECEIPT], (trust,))))
    assert f"{LISTED} of {LISTED + 1} targets (sha256:" in told
    assert "engine-silent was unreachable" in told
