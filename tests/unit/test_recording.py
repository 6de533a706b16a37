"""The recorded requests: a uniform sample, bounded in number, room and time, and unreadable on the disk."""

import os
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from prometheus_client import CollectorRegistry

from constitution.errors import InvalidRequestError
from constitution.policy.evaluation import EvaluationRequest
from services.policy_engine.recording import Recording

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
SECRET = "the launch code is 00000000"  # noqa: S105 - what a prompt may hold


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def recording(directory: Path, clock: Clock, **changes: Any) -> Recording:
    chosen: dict[str, Any] = {"requests": 100, "room": 1 << 20, "window_s": 3600.0} | changes
    registry = CollectorRegistry()
    dice = random.Random(5)  # noqa: S311 - sampling
    return Recording(directory=directory, registry=registry, target="engine-1", clock=clock, dice=dice.random, **chosen)


def request(number: int, prompt: str = "") -> EvaluationRequest:
    return EvaluationRequest(tenant="global", user=str(number), prompt=prompt, time=NOON)


def users(kept: Recording, most: int = 1_000_000) -> list[int]:
    sample = kept.sample(most)
    try:
        return [int(found.user) for found in sample.requests()]
    finally:
        sample.close()


def test_what_fits_is_kept_whole_and_in_order(tmp_path: Path, clock: Clock) -> None:
    kept = recording(tmp_path, clock)
    for number in range(50):
        kept.record(request(number, SECRET))
    clock.now += 60
    assert users(kept) == list(range(50))
    sample = kept.sample(1000)
    assert (len(sample), sample.span_s) == (50, 60)
    assert next(sample.requests()) == request(0, SECRET)
    sample.close()
    kept.close()


def test_too_many_become_a_uniform_sample_of_bounded_size(tmp_path: Path, clock: Clock) -> None:
    kept = recording(tmp_path, clock)
    for number in range(20_000):
        kept.record(request(number))
    found = users(kept)
    assert 25 <= len(found) <= 100
    assert 5_000 < sum(found) / len(found) < 15_000  # neither the oldest nor the newest
    fewer = users(kept, 20)
    assert len(fewer) == 20
    assert 3_000 < sum(fewer) / 20 < 17_000
    kept.close()


def test_a_quiet_time_after_a_crowded_one_does_not_outweigh_it(tmp_path: Path, clock: Clock) -> None:
    """The crowd's requests and the quiet time's are in the sample in the proportion in which they came."""
    crowd = quiet = 0
    for seed in range(40):
        dice = random.Random(seed)  # noqa: S311 - sampling
        kept = Recording(
            directory=tmp_path,
            requests=200,
            room=1 << 20,
            window_s=3600,
            registry=CollectorRegistry(),
            target="engine-1",
            clock=clock,
            dice=dice.random,
        )
        for _ in range(3000):
            kept.record(request(0))
        for _ in range(10):
            clock.now += 300
            for _ in range(100):
                kept.record(request(1))
        found = users(kept)
        crowd, quiet = crowd + found.count(0), quiet + found.count(1)
        kept.close()
    assert 2.5 < crowd / quiet < 3.6  # 3000 to 1000


def test_a_request_is_forgotten_after_its_time_and_the_sample_grows_again(tmp_path: Path, clock: Clock) -> None:
    kept = recording(tmp_path, clock)
    for number in range(5_000):
        kept.record(request(number))
    clock.now += 3601
    assert users(kept) == []
    for number in range(60):
        clock.now += 300
        kept.record(request(number))
    assert len(users(kept)) >= 10
    kept.close()


def test_room_on_the_disk_is_bounded_and_one_large_request_pushes_nothing_out(tmp_path: Path, clock: Clock) -> None:
    kept = recording(tmp_path, clock, room=100_000, requests=10_000)
    for number in range(3_000):
        kept.record(request(number, "x" * (number % 2_000)))
    assert kept._file is not None
    assert os.fstat(kept._file.fileno()).st_size <= 2 * 100_000 + 4_000
    assert kept._live <= 100_000
    found = users(kept)
    assert len(found) > 20
    small = recording(tmp_path, clock, room=20_000)
    small.record(request(1))
    small.record(request(2, "x" * 16_000))
    assert users(small) == [1]
    small.close()
    kept.close()


def test_nothing_on_the_disk_can_be_read_or_found_by_name(tmp_path: Path, clock: Clock) -> None:
    kept = recording(tmp_path, clock)
    for number in range(20):
        kept.record(request(number, SECRET))
    assert list(tmp_path.iterdir()) == []
    assert kept._file is not None
    kept._file.seek(0)
    data = kept._file.read()
    assert len(data) > 20 * len(SECRET)
    assert SECRET.encode() not in data
    assert b"global" not in data
    other = recording(tmp_path, clock)
    other.record(request(1))
    assert other._file is not None
    os.pwrite(other._file.fileno(), data[: other._kept[0].size], 0)  # sealed by another process's key
    sample = other.sample(1000)
    with pytest.raises(InvalidTag):
        list(sample.requests())
    sample.close()
    kept.close()
    other.close()


def test_a_sample_is_read_while_recording_goes_on_and_the_file_is_replaced(tmp_path: Path, clock: Clock) -> None:
    kept = recording(tmp_path, clock, room=10_000, requests=1_000)
    for number in range(20):
        kept.record(request(number))
    sample = kept.sample(1000)
    before = kept._file
    for number in range(2_000):
        kept.record(request(number))
    assert kept._file is not before
    assert [int(found.user) for found in sample.requests()] == list(range(20))
    sample.close()
    kept.close()


def test_a_disk_that_is_full_fails_no_evaluation(tmp_path: Path, clock: Clock) -> None:
    kept = recording(tmp_path, clock)
    with Path("/dev/full").open("wb", buffering=0) as full:
        kept._file = full
        kept.record(request(1))
        assert kept._failed._value.get() == 1
        assert users(kept) == []
        kept._file = None
    kept.close()


def test_nothing_is_recorded_where_nothing_may_be(tmp_path: Path, clock: Clock) -> None:
    none = recording(tmp_path / "missing", clock, requests=0)
    none.record(request(1))
    assert users(none) == []
    none.close()
    with pytest.raises(InvalidRequestError, match="RECORDING_DIRECTORY"):
        recording(tmp_path / "missing", clock)
