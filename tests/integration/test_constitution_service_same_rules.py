"""The rules of a poisoned document under another version: named, and refused until the board reissues them."""

import json

import pytest

from constitution.checksum import checksum_of
from constitution.errors import InvalidDocumentError
from tests.integration.test_constitution_service_poisoned import poisoned
from tests.integration.test_constitution_service_reissue import overrides, prepared
from tests.world.author import Author
from tests.world.documents import following, rule
from tests.world.files import EnvironmentFiles
from tests.world.processes import Service, run_constitution

HARMFUL = [
    rule("no-pay", "deny", "action == 'pay' && amount > 1.0", "high"),
    rule("no-wire", "deny", "action == 'wire'"),
]
REWRITTEN = [
    dict(reversed(rule("wires", "deny", 'action=="wire"', message="other words").items())),
    rule("payments", "deny", "amount > 1.00 &&\n  (action == 'pay')  // the same", "high"),
]


async def test_the_rules_of_a_poisoned_document_come_again_by_a_reissue_alone(
    author: Author, constitution_service: Service, environment_files: EnvironmentFiles
) -> None:
    first, _ = await poisoned(author, rules=HARMFUL)
    document = author.draft("1.2.0", following(first), rules=REWRITTEN)
    why = "the rules are those of 1.1.0, generation 2, which was undone as harmful: the test says poisoned"

    checksum = await author.push(document)  # stored: the board must be able to reissue it
    answer = await author.worker.validate(checksum)
    assert [(issue.code, issue.path, issue.message) for issue in answer.issues] == [("poisoned-rules", "/rules", why)]
    assert answer.harmful is not None
    path = environment_files.directory / "renamed.json"
    path.write_bytes(document)
    settings = {"CONSTITUTION_SERVICE_URL": constitution_service.url}
    code, out, err = run_constitution(settings, "diff", str(path), "--json")
    assert code == 0, err
    assert f"UNDONE BEFORE: {why}" in json.loads(out)["changes"]
    code, out, err = run_constitution(
        {"CONSTITUTION_SERVICE_URL": "http://127.0.0.1:9"}, "diff", str(path), "--old", "none"
    )
    assert code == 0, err
    assert "is not known" in err

    change_request = await author.ask(checksum)
    request = await prepared(author, document, change_request)
    with pytest.raises(InvalidDocumentError) as refused:
        await author.load(request, "load-1")
    assert [issue.code for issue in refused.value.issues] == ["poisoned-rules"]
    for envelope in overrides(author, document, change_request):
        await author.operator.reissue(change_request, envelope)
    answer = await author.worker.validate(checksum)
    assert (answer.valid, answer.reissued_by) == (True, ("alva", "bruno"))
    assert (await author.load(request, "load-2")).checksum == checksum


async def test_what_has_the_rules_of_the_live_document_may_follow_it(author: Author) -> None:
    first, _ = await poisoned(author)  # with the rules that are live again
    document = author.draft("1.2.0", following(first))
    assert (await author.worker.validate(await author.push(document))).valid
    assert (await author.confirmed(document)).checksum == checksum_of(document)
