"""The verdict about a long life: growth is found in noise, noise is no growth, and restarts do not hide a leak."""

import math
import random

import pytest

from bench.flat import Line, line, longest

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


def filling(leak: float) -> list[tuple[float, float]]:
    """What a process takes that is killed half-way through: its successor fills up by 10, and leaks besides."""
    half = RELEASES // 2
    return [
        (at, value + leak * (at - half) + 10 * (1 - math.exp((half - at) / 80)))
        for at, value in samples(0, 0.5)
        if at > half
    ]


def test_what_fills_up_and_comes_to_rest_is_flat_and_a_leak_below_it_is_found() -> None:
    assert fitted([(at, value - 80 if at <= 200 else value) for at, value in samples(0, 1)]).verdict == "flat"
    assert fitted(filling(0), limit=8).verdict == "flat"
    assert fitted(filling(0.02), limit=8).verdict == "grows"


def test_few_samples_say_nothing() -> None:
    assert fitted(samples(1, 0)[:14]).verdict == "too few samples"
    assert line([], releases=RELEASES, limit=1) is None


def test_a_killed_process_is_judged_by_its_longest_life() -> None:
    lives = [
        (pid, float(at), float(at)) for pid, ats in ((1, range(2)), (2, range(2, 9)), (3, range(9, 11))) for at in ats
    ]
    assert longest(lives) == [(float(at), float(at)) for at in range(2, 9)]
    assert longest([]) == []
