"""What became of a release is nobody's mere word: a release that undoes it, what an assessor saw, or signed orders."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from constitution.api import LoadResult
from constitution.environment import Strategy
from constitution.errors import ConflictError, EvidenceError
from constitution.release import Kind, Standing, Verdict
from tests.world.author import Author
from tests.world.documents import following


async def undone(author: Author, *, confirmed: bool) -> tuple[LoadResult, LoadResult]:
    """Generation 1 is confirmed, 2 is live."""
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    second, lease = await author.publish(author.draft("1.1.0", following(first)), expected_generation=1)
    if confirmed:
        await author.stand(2, Standing.CONFIRMED, lease)
    await author.release_lease(lease)
    return first, second


async def test_a_confirmed_release_that_nothing_undid_is_neither_withdrawn_nor_poisoned(author: Author) -> None:
    await undone(author, confirmed=True)
    lease = await author.lease(str(uuid4()), Kind.ROLLBACK)
    with pytest.raises(ConflictError, match="nothing has undone"):
        await author.stand(2, Standing.WITHDRAWN, lease)
    with pytest.raises(ConflictError, match="nothing has undone"):
        await author.stand(2, Standing.POISONED, lease)
    assert (await author.worker.release(2)).standing is Standing.CONFIRMED


async def test_only_an_anomaly_of_this_very_release_that_an_assessor_saw_poisons(author: Author) -> None:
    first, _ = await undone(author, confirmed=False)
    lease = await author.lease((await author.worker.release(2)).update_id, Kind.ROLLBACK)
    with pytest.raises(ConflictError, match="nothing has undone"):
        await author.stand(2, Standing.WITHDRAWN, lease)
    await author.load(author.undoing(lease, 2, first.checksum), "undo")
    later = (await author.worker.release(2)).effective_at + timedelta(seconds=1)
    await author.anomaly(1)
    wrong: tuple[dict[str, Any], ...] = (
        {},
        {"update_id": str(uuid4())},
        {"published_at": later},
        {"verdict": Verdict.OK},
        {"strategy": Strategy(alpha=0.4)},
    )
    for number, changes in enumerate(wrong):
        if changes:
            await author.anomaly(2, **changes)
        with pytest.raises(EvidenceError):
            await author.stand(2, Standing.POISONED, lease, f"wrong-{number}", attested=False)
    assert (await author.worker.release(2)).standing is None

    after = await author.stand(2, Standing.POISONED, lease)
    assert (after.standing, after.standings[-1].verdict) == (Standing.POISONED, Verdict.ANOMALY)


async def test_enough_signed_orders_of_the_board_say_it_without_evidence(author: Author) -> None:
    await undone(author, confirmed=True)
    lease = await author.lease(str(uuid4()), Kind.ROLLBACK)
    enough = await author.orders(2, "poison")
    for number, orders in enumerate(
        (
            enough[:1] * 2,
            await author.orders(2, "withdraw"),
            await author.orders(2, "poison", members=("mara", "alva")),
            await author.orders(1, "poison"),
            await author.orders(2, "poison", environment="production"),
        )
    ):
        with pytest.raises(ConflictError, match="nothing has undone"):
            await author.stand(2, Standing.POISONED, lease, f"wrong-{number}", attested=False, orders=orders)

    after = await author.stand(2, Standing.POISONED, lease, attested=False, orders=enough)
    assert after.standing is Standing.POISONED


async def test_what_the_board_denied_while_it_was_live_may_be_withdrawn(author: Author) -> None:
    await undone(author, confirmed=False)
    release = await author.worker.release(2)
    await author.deny(release.change_request or "", release.checksum)
    lease = await author.lease(release.update_id, Kind.ROLLBACK)
    assert (await author.stand(2, Standing.WITHDRAWN, lease)).standing is Standing.WITHDRAWN
