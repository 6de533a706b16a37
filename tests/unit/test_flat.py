"""The judgement of a soak test: growth is found in noise, noise is no growth, and restarts do not hide a leak."""

import math
import random

import pytest

from bench.flat import Line, line, longest
from tests.faults.load import Sample, lines

RELEASES = 500


def samples(slope: float, noise: float, *, wild: int = 0, seed: int = 1) -> list[tuple[float, float]]:
    rng = random.Random(seed)  # noqa: S311 - a reproducible series, no secret
    made = [(float(at), 100 + slope * at + rng.uniform(-noise, noise)) for at in range(10, RELEASES + 1, 10)]
    for index in rng.sample(range(len(made)), wild):
        made[index] = (made[index][0], 1000.0)
    return made


def fitted(made: list[tuple[float, float]], limit: float = 5) -> Line:
    found = line(made, releases=RELEASES, limit=limit)
    assert found is not None
    return found


def test_noise_around_a_constant_is_called_growth_no_more_often_than_the_interval_allows() -> None:
    verdicts = [fitted(samples(0, 10, seed=seed)).verdict for seed in range(400)]
    assert verdicts.count("grows") <= 0.025 * 400 + 3 * math.sqrt(400 * 0.025 * 0.975)


def test_a_leak_is_found_in_noise_and_between_wild_samples() -> None:
    found = fitted(samples(0.1, 5, wild=6))
    assert found.verdict == "grows"
    assert found.slope == pytest.approx(0.1, rel=0.2)
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0.1 < found.high
    assert found.growth == pytest.approx(50, rel=0.2)


def test_growth_below_the_limit_and_shrinking_are_flat() -> None:
    assert fitted(samples(0.005, 0.1)).verdict == "flat"
    assert fitted(samples(-1, 5)).verdict == "flat"


def test_the_first_fifth_is_warming_up() -> None:
    warm = [(at, value - 80 if at <= 100 else value) for at, value in samples(0, 1)]
    assert fitted(warm).verdict == "flat"


def lives(leak: float) -> list[Sample]:
    """A worker is killed half-way; either fills up by 10 MiB, and leaks. A service opens files in two steps."""
    half = RELEASES // 2
    told = []
    for at, value in samples(leak, 0.5):
        pid, age = (1, at) if at <= half else (2, at - half)
        taken = (pid, value + 10 * (1 - math.exp(-age / 80)), 30)
        opened = (3, 100.0, 31 + 8 * (at > 200) + 7 * (at > 330))
        told.append(
            Sample(
                at=int(at),
                processes={"worker": taken, "constitution-service": opened},
                postgres_connections=7,
                undelivered=0,
                open_runs=0,
                history_update=171,
                history_rollback=110,
            )
        )
    return told


def growing(leak: float) -> set[tuple[str, str]]:
    found = lines(lives(leak), RELEASES)
    return {(entry["process"], entry["quantity"]) for entry in found if entry["verdict"] == "grows"}


def test_memory_that_fills_up_and_comes_to_rest_is_flat_and_a_leak_below_it_is_found() -> None:
    assert ("worker", "rss_mib") not in growing(0)
    assert ("worker", "rss_mib") in growing(0.02)


def test_files_that_are_opened_in_steps_and_stay_open_are_found() -> None:
    assert ("constitution-service", "open_files") in growing(0)


def test_few_samples_say_nothing() -> None:
    assert fitted(samples(1, 0)[:6]).verdict == "too few samples"
    assert line([], releases=RELEASES, limit=1) is None


def test_a_killed_process_is_judged_by_its_longest_life() -> None:
    lives = [
        (pid, float(at), float(at)) for pid, ats in ((1, range(2)), (2, range(2, 9)), (3, range(9, 11))) for at in ats
    ]
    assert longest(lives) == [(float(at), float(at)) for at in range(2, 9)]
    assert longest([]) == []
