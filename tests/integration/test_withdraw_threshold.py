"""A withdraw, and orders that call a release withdrawn, take as many of the board as its own threshold says."""

from pathlib import Path
from uuid import uuid4

import pytest

from constitution.api import LeaseRequest
from constitution.errors import ConflictError, NotApprovedError
from constitution.release import Kind, Standing
from tests.world.author import Author, key
from tests.world.documents import following
from tests.world.files import EnvironmentFiles

ALL = ("alva", "bruno", "chen")


@pytest.fixture
def environment_files(tmp_path: Path) -> EnvironmentFiles:
    made = EnvironmentFiles.make(tmp_path / "environment")
    trust = made.directory / "trust" / "trust.toml"
    trust.write_text(trust.read_text().replace("withdraw = 2", "withdraw = 3"))
    assert "withdraw = 3" in trust.read_text()
    return made


async def test_a_withdraw_takes_its_own_threshold_in_the_service(author: Author) -> None:
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    await author.confirmed(author.draft("1.1.0", following(first)))
    two, three = (
        author.approvals(None, kind=Kind.WITHDRAW, rollback_of=2, members=members) for members in (ALL[:2], ALL)
    )
    identity = str(uuid4())
    asked = LeaseRequest(update_id=identity, kind=Kind.WITHDRAW, workflow_id="test", undoes=2, approvals=two)
    with pytest.raises(NotApprovedError):
        await author.worker.acquire_lease(asked, key(identity, "lease-1"))
    lease = await author.worker.acquire_lease(asked.model_copy(update={"approvals": three}), key(identity, "lease-2"))
    with pytest.raises(NotApprovedError, match="1 more of chen"):
        await author.load(author.undoing(lease, 2, None, two), "two")
    with pytest.raises(ConflictError, match="nothing has undone"):
        await author.stand(2, Standing.WITHDRAWN, lease, "orders", orders=await author.orders(2, "withdraw", ALL[:2]))

    loaded = await author.load(author.undoing(lease, 2, None, three), "three")
    assert (loaded.generation, loaded.checksum) == (3, None)
