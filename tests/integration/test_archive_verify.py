"""``archive verify``: a real archive, cloned, and everything that somebody who writes to it can do."""

import json
import shlex
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from dulwich import porcelain
from temporalio.client import Client

from activities.archive import ArchiveInput, HistoriesInput, RefusalInput, RejectionInput
from adapters.archive import CHANGE_LOG, GitArchive
from constitution.api import CloseRequest, LoadResult
from constitution.checksum import checksum_of
from constitution.receipt import MANIFEST, MANIFEST_SIGNATURE, RECEIPT
from constitution_client.main import run as command
from tests.integration.activity_support import Records, closed_run, refused, run
from tests.world.author import Author
from tests.world.documents import following
from tests.world.files import ENVIRONMENT
from tests.world.trust import entry, new_client_key, next_version
from worker import signer

FOLDERS = Path("docs/legal/constitution")


def refusal(update_id: str, **fields: Any) -> RefusalInput:
    return RefusalInput(
        environment=ENVIRONMENT,
        update_id=update_id,
        what="update",
        version="1.2.0",
        reason="the board did not decide in time: it | pays <b>everyone</b>",
        at=datetime(2026, 11, 22, 10, tzinfo=UTC),
        workflow_id="w",
        run_id="r",
        **fields,
    )


def verified(root: Path, author: Author, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, dict[str, Any]]:
    """Exit code and answer of the command."""
    trust = author.files.directory / "trust" / "trust.toml"
    code = command(["archive", "verify", str(root), "--trust", str(trust), "--json", *more])
    return code, json.loads(capsys.readouterr().out)


async def test_what_was_refused_without_a_denial_has_a_folder_and_a_row(records: Records, author: Author) -> None:
    document = author.draft("1.2.0")
    request = await author.prepared(document, expected_generation=0)
    x = refusal(request.update_id, checksum=checksum_of(document), change_request=request.change_request)
    failure = await refused(records.archive.archive_refusal, x)
    assert (failure.type, failure.non_retryable) == ("not-yet", False), "it is open"
    close = CloseRequest(change_request=request.change_request or "", reason="too late")
    await author.worker.abort_update(request.update_id, close)
    archived = await run(records.archive.archive_refusal, x)
    assert await run(records.archive.archive_refusal, x) == archived, "no commit was made"
    bare = x.model_copy(update={"version": None, "checksum": None, "change_request": None})
    assert await run(records.archive.archive_refusal, bare) == archived, "a guard knows the update alone"
    for changes in (
        {"change_request": "CR-nobody-knows"},
        {"update_id": str(uuid4()), "change_request": None, "checksum": checksum_of(b"nothing")},
        {"update_id": str(uuid4()), "change_request": None, "checksum": None},
        {"change_request": (await author.prepared(author.draft("1.3.0"), expected_generation=0)).change_request},
    ):
        failure = await refused(records.archive.archive_refusal, x.model_copy(update=changes))
        assert (failure.type, failure.non_retryable) == ("forbidden", True), changes
    live = await author.confirmed(author.draft("1.4.0"), expected_generation=0)
    release = await author.worker.release(live.generation)
    went_live = x.model_copy(update={"update_id": release.update_id, "change_request": release.change_request})
    failure = await refused(records.archive.archive_refusal, went_live)
    assert (failure.type, failure.non_retryable) == ("conflict", True), "it is live"
    log = (await records.repository.read(CHANGE_LOG) or b"").decode()
    (row,) = [[cell.strip() for cell in line.split("|")[1:-1]] for line in log.splitlines() if "rejected" in line]
    assert row[:6] == ["1.2.0", "—", x.checksum, "rejected", x.change_request, "—"]
    said = json.loads(await records.repository.read(f"{archived.folder}/outcome-rejected.json") or b"{}")
    assert said["reason"] == x.reason


async def told(records: Records, author: Author, client: Client, namespace: str) -> Path:
    """Two sealed releases, a third whose histories are not closed, one refused and one denied; a clone of them."""
    result: LoadResult | None = None
    for generation, version in enumerate(("1.0.0", "1.1.0", "1.2.0"), start=1):
        base = following(result) if result is not None else None
        result = await author.confirmed(author.draft(version, base), expected_generation=generation - 1)
        release = await author.delivered(generation)
        completed = ArchiveInput(environment=ENVIRONMENT, generation=generation, outcome="completed")
        await run(records.archive.archive_release, completed)
        if generation < 3:
            own = await closed_run(client, namespace, release.update_id)
            histories = HistoriesInput(environment=ENVIRONMENT, generation=generation, runs=(own,))
            await run(records.archive.archive_histories, histories)
    late = author.draft("1.3.0")
    request = await author.ask(await author.push(late))
    expired = refusal(str(uuid4()), checksum=checksum_of(late), change_request=request)
    await run(records.archive.archive_refusal, expired)
    document = author.draft("1.4.0")
    prepared = await author.prepared(document, expected_generation=3)
    asked = prepared.change_request or ""
    denied = RejectionInput(
        **refusal(prepared.update_id, checksum=checksum_of(document), change_request=asked).model_dump()
        | {"version": "1.4.0", "at": datetime.now(UTC)},
        denied_by="bruno",
        decisions=(author.denial(asked, checksum_of(document), "bruno", version="1.4.0"),),
    )
    await run(records.archive.archive_denial, denied)
    clone = records.path.parent / "clone"
    porcelain.clone(str(records.path), str(clone)).close()
    return clone


def rotated(author: Author, table: str, name: str) -> tuple[str, str]:
    """The edit that puts a new key in the place of an old one."""
    old = entry(author.files, table, name).split('public_key = "')[1].split('"')[0]
    return old, new_client_key(author.files, name).public_text()


def without(folder: Path) -> None:
    shutil.rmtree(folder)


def appended(path: Path, data: bytes = b" ") -> None:
    path.write_bytes(path.read_bytes() + data)


async def test_a_whole_archive_is_verified_with_public_keys_and_the_first_wrong_file_is_named(
    *,
    author: Author,
    records: Records,
    temporal_client: Client,
    namespace: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    clone = await told(records, author, temporal_client, namespace)
    head = tmp_path / "newest.json"
    head.write_bytes((clone / FOLDERS / "1.1.0-2" / RECEIPT).read_bytes())
    code, said = verified(clone, author, capsys, "--head", str(head))
    assert (code, said["valid"], said["first_wrong"]) == (0, True, None), said
    parts = {part["folder"]: "\n".join(line["message"] for line in part["lines"]) for part in said["parts"]}
    assert "there is none yet" in parts["1.2.0-3"]
    (refused_one, denied_one) = sorted(
        (text for name, text in parts.items() if name.startswith("rejected-")), key=lambda text: "bruno" in text
    )
    assert "nobody of the board denied it" in refused_one
    assert "bruno signed the denial" in denied_one
    assert "worker signed manifest.json" in parts["1.0.0-1"]
    assert "has the 5 rows of the outcomes that are here, and no others" in parts["archive"]
    (rejected,) = [
        path.parent.name
        for path in (clone / FOLDERS).glob("rejected-*/outcome-rejected.json")
        if b'"denied_by"' not in path.read_bytes()
    ]

    strange = signer(ENVIRONMENT, author.files.key("assessor-client"))

    def resigned(root: Path) -> None:
        """Everything anew, as somebody with another key of the policy can."""
        folder = root / FOLDERS / "1.2.0-3"
        (folder / MANIFEST_SIGNATURE).write_bytes(strange("1.2.0-3", (folder / MANIFEST).read_bytes()))

    def unsealed(root: Path) -> None:
        """A release without its receipt, listed so by hand."""
        for name in (RECEIPT, "receipt-manifest.json"):
            (root / FOLDERS / "1.0.0-1" / name).unlink()

    def no_row(root: Path) -> None:
        lines = (root / CHANGE_LOG).read_text().splitlines(keepends=True)
        (root / CHANGE_LOG).write_text("".join(line for line in lines if "/3/completed -->" not in line))

    cases: dict[str, tuple[Any, str]] = {
        "a byte more in a sealed release": (
            lambda r: appended(r / FOLDERS / "1.0.0-1" / "README.md"),
            "1.0.0-1/README.md",
        ),
        "a byte more in one that is not": (
            lambda r: appended(r / FOLDERS / "1.2.0-3" / "outcome-completed.json"),
            "1.2.0-3/manifest.json",
        ),
        "a refusal of another reason": (
            lambda r: appended(r / FOLDERS / rejected / "outcome-rejected.json"),
            f"{rejected}/manifest.json",
        ),
        "a manifest that another client signed": (resigned, f"1.2.0-3/{MANIFEST_SIGNATURE}"),
        "a sealed release taken out": (lambda r: without(r / FOLDERS / "1.0.0-1"), "archive/chain"),
        "a refusal taken out": (lambda r: without(r / FOLDERS / rejected), "archive/change log"),
        "the newest release taken out": (lambda r: without(r / FOLDERS / "1.2.0-3"), "archive/change log"),
        "a row taken out": (no_row, "archive/change log"),
        "a folder of nothing": (lambda r: (r / FOLDERS / "1.9.0").mkdir(), "1.9.0/1.9.0"),
        "a release under another name": (
            lambda r: (r / FOLDERS / "1.0.0-1").rename(r / FOLDERS / "1.0.1-1"),
            "1.0.1-1/receipt.json",
        ),
    }
    for name, (change, first) in cases.items():
        copy = tmp_path / "copy"
        shutil.copytree(clone, copy)
        change(copy)
        code, said = verified(copy, author, capsys)
        assert (code, said["first_wrong"]) == (1, first), (name, said)
        shutil.rmtree(copy)
    shutil.copytree(clone, tmp_path / "copy")
    unsealed(tmp_path / "copy")
    code, said = verified(tmp_path / "copy", author, capsys)
    assert (code, said["first_wrong"]) == (1, "1.0.0-1/manifest.json"), said
    head.write_bytes(head.read_bytes()[:-1])
    assert verified(clone, author, capsys, "--head", str(head))[1]["first_wrong"] == "archive/head"
    trust = author.files.directory / "trust" / "trust.toml"
    assert command(["archive", "verify", str(tmp_path / "nothing"), "--trust", str(trust)]) == 1

    before = tmp_path / "before"
    shutil.copytree(trust.parent, before)
    next_version(
        author.files, *(rotated(author, *who) for who in (("services", "constitution-service"), ("clients", "worker")))
    )
    code, said = verified(clone, author, capsys)
    assert (code, said["first_wrong"]) == (1, f"1.0.0-1/{RECEIPT}"), "keys that left the policy"
    assert command(["archive", "verify", str(clone), "--trust", str(trust), "--text"]) == 1
    hint = capsys.readouterr().out.rstrip().rpartition(": constitution ")[2]
    assert command([*shlex.split(hint.replace("FILE", shlex.quote(str(before / "trust.toml")))), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["first_wrong"] is None


async def test_a_commit_without_a_key_is_seen(tmp_path: Path, records: Records, author: Author) -> None:
    """Whoever reaches the repository commits; the manifest that he makes anew bears nobody's signature."""
    await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    await author.delivered(1)
    await run(records.archive.archive_release, ArchiveInput(environment=ENVIRONMENT, generation=1, outcome="completed"))
    folder = "docs/legal/constitution/1.0.0-1"
    before = await records.repository.read(f"{folder}/{MANIFEST_SIGNATURE}")
    await GitArchive(records.path).commit(
        {f"{folder}/README.md": b"another"}, change_log_row=None, message="Tidy", manifest=folder
    )
    assert await records.repository.read(f"{folder}/{MANIFEST_SIGNATURE}") == before
    clone = tmp_path / "clone"
    porcelain.clone(str(records.path), str(clone)).close()
    assert command(["archive", "verify", str(clone), "--trust", str(author.files.directory / "trust/trust.toml")]) == 1
