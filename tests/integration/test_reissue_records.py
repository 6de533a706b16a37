"""A reissue is in every record of the release that it let come again: gate's diff, statement, receipt, archive."""

import asyncio

from temporalio.client import Client

from activities import same_rules
from activities.archive import ArchiveInput, HistoriesInput
from constitution.checksum import checksum_of
from constitution.policy.document import parse
from constitution.receipt import RECEIPT
from constitution.receipt_story import story
from constitution.release import Standing
from signatures.dsse import envelope_digest
from signatures.receipt_verify import open_receipt, verify_folder
from signatures.statements import verify_release
from tests.integration.activity_support import Records, closed_run, run
from tests.integration.test_constitution_service_poisoned import poisoned
from tests.integration.test_constitution_service_reissue import overrides, prepared
from tests.integration.test_constitution_service_same_rules import HARMFUL, REWRITTEN
from tests.world.author import Author
from tests.world.documents import following
from tests.world.files import ENVIRONMENT


async def test_a_reissue_is_in_statement_receipt_and_archive(
    author: Author, records: Records, temporal_client: Client, namespace: str
) -> None:
    _, document = await poisoned(author)
    change_request = await author.ask(checksum_of(document))
    request = await prepared(author, document, change_request)
    signed = overrides(author, document, change_request)
    for envelope in signed:
        await author.operator.reissue(change_request, envelope)
    loaded = await author.load(request, "load")
    release = await author.delivered(loaded.generation)
    digests = {envelope_digest(envelope) for envelope in signed}
    assert set(verify_release(release.statement, author.files.trust).reissues) == digests

    await author.stand(loaded.generation, Standing.CONFIRMED, await author.lease(request.update_id))
    x = ArchiveInput(environment=ENVIRONMENT, generation=loaded.generation, outcome="completed")
    await run(records.archive.archive_release, x)
    own = await closed_run(temporal_client, namespace, release.update_id)
    await run(
        records.archive.archive_histories,
        HistoriesInput(environment=ENVIRONMENT, generation=loaded.generation, runs=(own,)),
    )
    root = records.path / "docs" / "legal" / "constitution" / f"1.1.0-{loaded.generation}"
    files = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    report = await asyncio.to_thread(verify_folder, files, author.files.trust)
    assert report.valid, report.text()
    assert {line.message for line in report.lines if line.what.startswith("reissues/")} == {
        "alva let it come again",
        "bruno let it come again",
    }
    receipt = open_receipt(files[RECEIPT], (author.files.trust,))
    assert {fact.sha256 for fact in receipt.reissues} == digests
    assert "alva let it come again after it, or its rules, had been undone as harmful." in "\n".join(story(receipt))


async def test_the_gates_diff_names_what_the_rules_were_before(author: Author) -> None:
    first, document = await poisoned(author, rules=HARMFUL)
    live = await author.worker.artifact(first.checksum or "")

    async def lines(draft: bytes) -> list[str]:
        return await same_rules.named(author.worker, parse(draft), checksum_of(draft), live)

    assert await lines(author.draft("1.2.0", following(first))) == [
        "SAME RULES as the live version 1.0.0: no request is decided otherwise"
    ]
    assert await lines(document) == [
        "UNDONE BEFORE: generation 2 of this document was undone as harmful: the test says poisoned"
    ]
    assert await lines(author.draft("1.2.0", following(first), rules=REWRITTEN)) == [
        "UNDONE BEFORE: the rules are those of 1.1.0, generation 2, which was undone as harmful: the test says poisoned"
    ]
    assert await lines(author.draft("1.2.0", following(first), rules=HARMFUL[1:])) == []
