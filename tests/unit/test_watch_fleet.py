"""What fleet and Prometheus do to counters, without any release being the cause, makes no alarm; a real burst does.

Counters are built here sample by sample, and judged by the backtest, which is the live watch's code.
``tests/data/watch/streams.jsonl`` holds eight streams that the watch once judged wrongly or might: counters that never
move or move perfectly steadily, a share that stays, a rise that was predicted, two replicas of which one restarts at
publish, one counter under a new label, and the same under the old one. They were made by a generator of such
streams, not recorded.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constitution.release import Verdict
from constitution.watch.backtest import BacktestCase, BacktestResult, read_case, run_case
from constitution.watch.baseline import Measure
from constitution.watch.counters import CounterGrid
from constitution.watch.spike import SpikeParameters

PUBLISH = 1_800_000_000
BEFORE, AFTER, SCRAPE = 720, 360, 5
STREAMS = Path(__file__).parents[1] / "data" / "watch" / "streams.jsonl"
HARMLESS = {Verdict.OK, Verdict.CANNOT_TELL}
Way = Literal["up", "down", "both"]
WAYS: tuple[Way, ...] = ("up", "down", "both")

ReadSample = tuple[float, int]


@dataclass(frozen=True)
class Counter:
    """A counter as its process holds it: events between scrapes, restarts at some of them."""

    instance: str
    phase: float
    events: Sequence[int]
    first: int = 1000

    def samples(self, *, restart: int | None = None, away: int = 0) -> list[ReadSample]:
        """Scraped every five seconds; before ``restart`` it cannot be reached for so many scrapes, then begins at 0."""
        value, found = self.first, []
        for i, count in enumerate(self.events):
            value += count
            if restart is not None and restart - away <= i < restart:
                continue
            if i == restart:
                value = count // 2
            found.append((PUBLISH + (i - BEFORE) * SCRAPE + self.phase, value))
        return found

    def entry(self, samples: Iterable[ReadSample], **labels: str) -> dict[str, Any]:
        """A matrix entry of some of its samples."""
        values = [[t, str(v)] for t, v in samples]
        return {"metric": {"job": "engine", "instance": self.instance, **labels}, "values": values}


def counter(seed: int, *, instance: str = "a", per_scrape: float = 25.0, phase: float = 1.0) -> Counter:
    rng = np.random.default_rng([seed, ord(instance)])
    return Counter(instance, phase, rng.poisson(per_scrape, BEFORE + AFTER).tolist())


def judged(
    *entries: dict[str, Any], measure: Measure = "rate", way: Way = "both", slack: float = 0.05
) -> BacktestResult:
    case = BacktestCase(
        id=1,
        publish_ts=PUBLISH,
        bake_s=AFTER * SCRAPE,
        scrape_interval_s=SCRAPE,
        series=list(entries),
        measure=measure,
    )
    return run_case(case, SpikeParameters(direction=way, min_rate=slack))


RIGHT: dict[str, tuple[Measure, float, set[Verdict]]] = {
    "flat-constant-7": ("rate", 0.05, HARMLESS),
    "flat-perfectly-steady-0.05/s": ("rate", 0.05, HARMLESS),
    "share2-exactly-2-percent-always": ("share", 0.01, HARMLESS),
    "predicted-0 to 5 %, up to 10 % predicted": ("share", 0.1, HARMLESS),
    "06-all-zero": ("rate", 0.05, HARMLESS),
    "12b-two-replicas-restart-at-publish": ("rate", 0.05, {Verdict.OK}),
    "relabelled": ("rate", 0.05, {Verdict.OK}),
    "same labels": ("rate", 0.05, {Verdict.OK}),
}
CASES = {str(case.id): case for case in (read_case(line) for line in STREAMS.read_bytes().splitlines())}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", RIGHT)
def test_each_known_stream_is_judged_rightly(name: str, way: Way) -> None:
    measure, slack, right = RIGHT[name]
    case = CASES[name].model_copy(update={"measure": measure})
    assert run_case(case, SpikeParameters(direction=way, min_rate=slack)).verdict in right


def test_every_known_stream_has_its_right_outcome() -> None:
    assert set(CASES) == set(RIGHT)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    at=st.integers(1, BEFORE + AFTER - 1),
    late=st.sampled_from([0.0, 0.7, 2.5, 4.9]),
    measure=st.sampled_from(["rate", "share"]),
    first=st.sampled_from([0, 40, 1000, 10**9]),
)
def test_a_counter_under_new_labels_from_any_scrape_on_is_judged_as_before(
    *, seed: int, at: int, late: float, measure: Measure, first: int
) -> None:
    allowed, refused = counter(seed), counter(seed + 1, per_scrape=3.0)
    plain, relabelled = [], []
    for one, decision in ((allowed, "allow"), (refused, "deny")):
        samples = Counter(one.instance, one.phase, one.events, first).samples()
        plain.append(one.entry(samples, decision=decision))
        relabelled.append(one.entry(samples[:at], decision=decision))
        # A changed configuration scrapes at another instant, too.
        after = [(t + late, v) for t, v in samples[at:]]
        relabelled.append(one.entry(after, decision=decision, team="risk"))
    before, found = judged(*plain, measure=measure), judged(*relabelled, measure=measure)
    assert found.verdict is before.verdict
    if not late:
        assert found == before


def test_labels_that_change_to_and_fro_lose_and_invent_nothing() -> None:
    one = counter(3)
    samples = one.samples()
    pieces: dict[str, list[ReadSample]] = {"x": [], "y": [], "z": []}
    for i, sample in enumerate(samples):
        pieces["xyz"[i // 7 % 3]].append(sample)
    found = judged(*(one.entry(piece, team=name) for name, piece in pieces.items()))
    assert found == judged(one.entry(samples))


def test_replicas_without_names_are_not_taken_for_one_another() -> None:
    ours, theirs = counter(4), counter(5, phase=3.3)
    joins = BEFORE + 80
    entries = [ours.entry(ours.samples(), pod="x"), theirs.entry(theirs.samples()[joins:], pod="y")]
    for entry in entries:
        del entry["metric"]["instance"]
    grid = CounterGrid(origin_s=PUBLISH, interval_s=SCRAPE, measure="rate")
    grid.feed(entries)
    counted = sum(tick.count for tick in grid.ticks(PUBLISH + 2 * AFTER * SCRAPE))
    assert counted == sum(ours.events[1:]) + sum(theirs.events[joins + 1 :])


@pytest.mark.parametrize("value", [10**4, 10**7, 10**12])
def test_a_value_from_nowhere_is_no_burst_of_events(value: int) -> None:
    one = counter(6)
    stranger = [(t, value + i) for i, (t, _) in enumerate(one.samples()[BEFORE + 20 :])]
    assert judged(one.entry(one.samples()), one.entry(stranger, rule="new")).verdict is Verdict.OK


@pytest.mark.parametrize("away", [1, 3, 6])  # scrapes: 5, 15 and 30 s
@pytest.mark.parametrize("seeds", [range(8), pytest.param(range(8, 25), marks=pytest.mark.slow)], ids=["few", "more"])
def test_one_of_two_replicas_that_restarts_is_no_evidence(away: int, seeds: range) -> None:
    for seed in seeds:
        stays, restarts = counter(seed), counter(seed, instance="b", phase=3.3)
        moment = BEFORE + seed % 9 * 30 + away
        found = judged(stays.entry(stays.samples()), restarts.entry(restarts.samples(restart=moment, away=away)))
        assert found.verdict is Verdict.OK, (seed, found.reason)


def test_a_fleet_that_restarts_one_by_one_is_no_evidence() -> None:
    for seed in range(10):
        fleet = [counter(seed, instance=chr(97 + i), phase=0.5 + i) for i in range(4)]
        entries = [one.entry(one.samples(restart=BEFORE + 20 + 8 * i, away=4)) for i, one in enumerate(fleet)]
        assert judged(*entries).verdict is Verdict.OK, seed


@pytest.mark.parametrize("replicas", [1, 2, 12])
@pytest.mark.parametrize("restart", [None, BEFORE + 10])
def test_a_real_rise_is_found_beside_all_that(replicas: int, restart: int | None) -> None:
    entries = []
    for i in range(replicas):
        one = counter(i, instance=chr(97 + i), phase=0.3 * (i + 1))
        risen = [count * (2 if k >= BEFORE + 12 else 1) for k, count in enumerate(one.events)]
        one = Counter(one.instance, one.phase, risen)
        samples = one.samples(restart=restart if i == 0 else None, away=3 if restart else 0)
        entries += [one.entry(samples[: BEFORE + 30]), one.entry(samples[BEFORE + 30 :], team="risk")]
    found = judged(*entries)
    assert found.verdict is Verdict.ANOMALY
    assert found.at is not None
    assert found.at < PUBLISH + 200


@pytest.mark.parametrize("per_scrape", [5, 25, 400])
def test_a_burst_under_a_label_never_seen_before_is_found(per_scrape: int) -> None:
    one = counter(7)
    burst = [(t, per_scrape * (i + 1)) for i, (t, _) in enumerate(one.samples()[BEFORE + 20 :])]
    found = judged(
        one.entry(one.samples(), decision="allow"), one.entry(burst, decision="deny"), measure="share", slack=0.01
    )
    assert found.verdict is Verdict.ANOMALY
