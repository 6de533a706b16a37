"""Confirmation rests on what the board signed and on evidence; whoever calls the activity decides nothing."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from activities.confirm import Confirm, StandingInput
from activities.publish import Publish
from activities.sync import Sync
from adapters.targets import HttpTargets
from constitution.api import Lease, LoadResult
from constitution.checksum import checksum_of
from constitution.environment import Strategy
from constitution.release import Release, Standing, Verdict
from constitution.watch.evidence import WatchEvidence
from tests.activity_support import make_config, refused, run
from tests.constitution_service_support import ENVIRONMENT, Author, Site, following

SIGNED = Strategy(watch_seconds=60)


@pytest.fixture
def confirm(author: Author, service_site: Site, publish: Publish, tmp_path: Path) -> Confirm:
    config = make_config(service_site, tmp_path)
    targets = HttpTargets(service_site.key("worker"), ENVIRONMENT)
    sync = Sync(targets=targets, service=author.worker, config=config)
    return Confirm(service=author.worker, config=config, publish=publish, sync=sync)


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


def _evidence(release: Release) -> WatchEvidence:
    """The end of a watch that saw nothing wrong, as `SIGNED` wishes."""
    end = release.effective_at + timedelta(seconds=SIGNED.watch_seconds)
    return WatchEvidence(
        environment=ENVIRONMENT,
        update_id=release.update_id,
        generation=release.generation,
        strategy=SIGNED,
        test_evidence=release.evidence,
        published_at=release.effective_at,
        ends_at=end,
        alpha=SIGNED.alpha,
        limit=4.6,
        log_e=(),
        verdict=Verdict.OK,
        reason="no change was seen",
        decided_at=end,
        leading="refusals",
        quantities={},
        samples={},
    )


WRONG: dict[str, tuple[Callable[[WatchEvidence], WatchEvidence], str]] = {
    "a strategy that watches something else": (
        lambda e: e.model_copy(update={"strategy": SIGNED.model_copy(update={"delta": 5.0})}),
        "not the one that the board signed",
    ),
    "a strategy without a watch": (
        lambda e: e.model_copy(update={"strategy": Strategy(watch_seconds=0)}),
        "not the one that the board signed",
    ),
    "against another expected change": (
        lambda e: e.model_copy(update={"test_evidence": checksum_of(b"other")}),
        "not the one that the board signed",
    ),
    "cut short": (lambda e: e.model_copy(update={"ends_at": e.ends_at - timedelta(seconds=30)}), "before"),
    "of another update": (lambda e: e.model_copy(update={"update_id": str(uuid4())}), "another watch"),
    "an anomaly": (lambda e: e.model_copy(update={"verdict": Verdict.ANOMALY}), "rolls back"),
}


async def test_only_the_watch_that_the_board_signed_confirms(author: Author, confirm: Confirm) -> None:
    loaded, lease = await _published(author)
    release = await author.delivered(loaded.generation)
    asked = StandingInput(
        environment=ENVIRONMENT,
        generation=release.generation,
        standing=Standing.CONFIRMED,
        reason="whoever calls says so",
        update_id=release.update_id,
        fencing_token=lease.fencing_token,
    )

    async def stored(evidence: WatchEvidence) -> StandingInput:
        digest = await author.worker.put_blob(evidence.model_dump_json().encode())
        return asked.model_copy(update={"watch_evidence": digest})

    assert "no evidence" in (await refused(confirm.record_standing, asked)).message
    for what, (wrong, words) in WRONG.items():
        failure = await refused(confirm.record_standing, await stored(wrong(_evidence(release))))
        assert words in failure.message, what
        assert failure.non_retryable, what
    assert (await author.worker.release(release.generation)).standing is None

    result = await run(confirm.record_standing, await stored(_evidence(release)))

    assert (result.standing, result.verdict) == (Standing.CONFIRMED, Verdict.OK)
    again = await run(confirm.record_standing, await stored(_evidence(release)))
    assert again == result, "an answer that was lost is found again"
    assert (await author.worker.release(release.generation)).standings[-1].recorded_at <= datetime.now(UTC)
