"""What activities keep of each release while they look through all of them."""

import gc
import tracemalloc
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

from constitution.past import past, versions_before
from constitution.release import Envelope, Kind, Release, Standing, StandingRecord, Verdict

RELEASES = 300
SIGNED = Envelope(
    payloadType="application/vnd.in-toto+json",
    payload="A" * 2000,
    signatures=(Envelope.Signature(keyid="k" * 64, sig="s" * 88),),
)


def written(generation: int) -> str:
    """A release as the service writes it."""
    update_id = str(uuid4())
    moment = datetime(2026, 11, 27, 10, second=generation % 60, tzinfo=UTC)
    return Release(
        environment="testing",
        generation=generation,
        kind=Kind.UPDATE,
        rings=("default",),
        version=f"1.{generation}.0",
        checksum="sha256:" + f"{generation:064x}",
        previous_generation=generation - 1 or None,
        rollback_of=None,
        update_id=update_id,
        event_id=str(uuid4()),
        change_request=f"CR-{generation}",
        reason="because",
        effective_at=moment,
        approvers=("alva", "bruno"),
        evidence=None,
        statement=SIGNED,
        approvals=(SIGNED, SIGNED),
        workflow={"workflow_id": f"constitution-update/testing/CR-{generation}", "run_id": str(uuid4())},
        standings=(
            StandingRecord(
                standing=Standing.CONFIRMED,
                verdict=Verdict.OK,
                reason="every target obeys",
                update_id=update_id,
                recorded_at=moment,
            ),
        ),
    ).model_dump_json()


def test_what_is_kept_of_a_release_is_a_small_part_of_it() -> None:
    rows = [written(generation) for generation in range(1, RELEASES + 1)]
    past(Release.model_validate_json(rows[0]))  # what is made once is made now
    tracemalloc.start()
    try:
        whole = [Release.model_validate_json(row) for row in rows]
        gc.collect()
        both, _ = tracemalloc.get_traced_memory()
        kept = [past(release) for release in whole]
        del whole
        gc.collect()
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(kept) == RELEASES
    assert left < both / 10, (left / RELEASES, both / RELEASES)


def test_a_run_that_nobody_named_is_empty() -> None:
    release = Release.model_validate_json(written(1)).model_copy(update={"workflow": {}})
    assert (past(release).workflow_id, past(release).run_id) == ("", "")


def test_a_withdrawn_documents_own_version_does_not_stand_in_its_way_and_a_poisoned_ones_does() -> None:
    said = [past(Release.model_validate_json(written(generation))) for generation in (1, 2, 3)]
    checksum = said[1].checksum
    for standing, expected in (
        (Standing.WITHDRAWN, ["1.1.0", "1.3.0"]),
        (Standing.POISONED, ["1.1.0", "1.2.0", "1.3.0"]),
        (Standing.CONFIRMED, ["1.1.0", "1.2.0", "1.3.0"]),
        (None, ["1.1.0", "1.2.0", "1.3.0"]),
    ):
        stood = () if standing is None else (replace(said[1].standings[0], standing=standing),)
        releases = [said[0], replace(said[1], standings=stood), said[2]]
        assert versions_before(releases, checksum) == expected
        if standing is Standing.POISONED:
            assert versions_before(releases, checksum, reissued=True) == ["1.1.0", "1.3.0"]
    confirmed_since = [*releases[:1], replace(said[1], standings=()), replace(said[2], checksum=checksum)]
    assert versions_before(confirmed_since, checksum) == ["1.1.0", "1.2.0", "1.3.0"]
