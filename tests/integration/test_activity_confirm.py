"""A standing rests on what an assessor signed; whoever calls the activity decides nothing."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from activities.confirm import Confirm, StandingInput
from activities.publish import Publish
from constitution.api import Lease, LoadResult
from constitution.environment import Strategy
from constitution.release import Kind, Standing, Verdict
from tests.integration.activity_support import make_config, refused, run
from tests.world.author import Author
from tests.world.documents import following
from tests.world.files import ENVIRONMENT, EnvironmentFiles

SIGNED = Strategy(watch_seconds=60)


@pytest.fixture
def confirm(author: Author, environment_files: EnvironmentFiles, publish: Publish, tmp_path: Path) -> Confirm:
    return Confirm(service=author.worker, config=make_config(environment_files, tmp_path), publish=publish)


async def _published(author: Author) -> tuple[LoadResult, Lease]:
    """A second release that is live and unconfirmed; its board signed `SIGNED`."""
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    document = author.draft("1.1.0", following(first))
    request = await author.prepared(document, expected_generation=1)
    approvals = author.approvals(
        document,
        change_request=request.change_request,
        evidence=request.test_evidence,
        plan=author.plan(request.update_id, watch=SIGNED),
    )
    lease = await author.lease(request.update_id)
    changes = {"fencing_token": lease.fencing_token, "approvals": approvals}
    return await author.load(request.model_copy(update=changes)), lease


async def test_only_what_an_assessor_saw_confirms(author: Author, confirm: Confirm) -> None:
    loaded, lease = await _published(author)
    release = await author.delivered(loaded.generation)
    invented = await author.assessor.put_blob(b'{"verdict": "ok"}')
    asked = StandingInput(
        environment=ENVIRONMENT,
        generation=release.generation,
        standing=Standing.CONFIRMED,
        reason="whoever calls says so",
        update_id=release.update_id,
        fencing_token=lease.fencing_token,
    )
    failure = await refused(confirm.record_standing, asked)
    assert (failure.type, failure.non_retryable) == ("evidence-refused", True)
    await author.attest(await author.synced(2))
    failure = await refused(confirm.record_standing, asked)
    assert "no assessor has signed that it watched" in failure.message
    assert (await author.worker.release(2)).standing is None

    end = release.effective_at + timedelta(seconds=SIGNED.watch_seconds)
    await author.attest(await author.watched(2, invented, strategy=SIGNED, ends_at=end))
    result = await run(confirm.record_standing, asked)

    assert (result.standing, result.verdict) == (Standing.CONFIRMED, Verdict.OK)
    again = await run(confirm.record_standing, asked)
    assert again == result, "an answer that was lost is found again"
    assert (await author.worker.release(2)).standings[-1].recorded_at <= datetime.now(UTC)


@pytest.mark.parametrize(("seen", "standing"), [(Verdict.ANOMALY, Standing.POISONED), (Verdict.OK, Standing.WITHDRAWN)])
async def test_only_an_anomaly_that_an_assessor_saw_poisons(
    author: Author, confirm: Confirm, seen: Verdict, standing: Standing
) -> None:
    loaded, lease = await _published(author)
    await author.release_lease(lease)
    release = await author.worker.release(loaded.generation)
    undo = await author.lease(release.update_id, Kind.ROLLBACK)
    restored = (await author.worker.release(1)).checksum
    await author.load(author.undoing(undo, 2, restored), "undo")
    await author.anomaly(2, strategy=SIGNED, verdict=seen)
    asked = StandingInput(
        environment=ENVIRONMENT,
        generation=2,
        standing=Standing.WITHDRAWN,
        reason="undone",
        update_id=release.update_id,
        fencing_token=undo.fencing_token,
    )
    result = await run(confirm.record_standing, asked)
    assert (result.standing, result.verdict) == (standing, seen)
