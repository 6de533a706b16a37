"""A release that nobody watches may take more of the board, by a setting of the trust policy."""

from pathlib import Path
from typing import Any

import pytest

from constitution.environment import Strategy
from constitution.errors import NotApprovedError
from tests.world.author import Author
from tests.world.documents import following
from tests.world.files import EnvironmentFiles


@pytest.fixture
def environment_files(tmp_path: Path) -> EnvironmentFiles:
    made = EnvironmentFiles.make(tmp_path / "environment")
    trust = made.directory / "trust" / "trust.toml"
    trust.write_text(trust.read_text().replace("[thresholds]\n", "[thresholds]\nunwatched = 3\n"))
    return made


async def test_an_unwatched_update_takes_more_of_the_board(author: Author) -> None:
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    document = author.draft("1.1.0", following(first))
    request = await author.prepared(document, expected_generation=1)
    lease = await author.lease(request.update_id)
    request = request.model_copy(update={"fencing_token": lease.fencing_token})
    bound: dict[str, Any] = {
        "change_request": request.change_request,
        "evidence": request.test_evidence,
        "plan": author.plan(request.update_id, watch=Strategy(watch_seconds=0)),
    }

    two = author.approvals(document, **bound)
    with pytest.raises(NotApprovedError, match="1 more of chen"):
        await author.load(request.model_copy(update={"approvals": two}), "two")
    three = author.approvals(document, **bound, members=("alva", "bruno", "chen"))
    loaded = await author.load(request.model_copy(update={"approvals": three}), "three")

    assert loaded.generation == 2


async def test_a_watched_update_and_a_first_release_do_not(author: Author) -> None:
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    second, _ = await author.publish(author.draft("1.1.0", following(first)), expected_generation=1)
    assert second.generation == 2
