"""Every strategy that is shipped watches how often agents ask and how many are refused, and says which of them.

Counters are drawn here and judged by the family that runs live.
"""

from pathlib import Path

import numpy as np
import pytest

from activities.watch.plan import plan
from bench.watch import cells
from bench.watch.streams import Change, Noise, counts
from constitution.environment import Environment, Strategy
from constitution.release import Verdict
from constitution.watch.prediction import Expected
from constitution.watch.spike_family import FamilyReading
from constitution.watch.watching_family import FamilyWatch
from deploy.demo.__main__ import FAST_PACE
from deploy.embedded import development

ROOT = Path(__file__).parents[2]
PUBLISH = 1_800_000_000.0


def shipped(folder: Path) -> dict[str, Strategy]:
    """The watched strategies of the production template, of the stack's own file at both paces, and of an empty one."""
    found = {"production": Environment.parse((ROOT / "deploy/environments/production.toml").read_text())}
    for name, pace in (("development", development.PACE), ("fast", FAST_PACE)):
        file = folder / f"{name}.toml"
        development.write_environment(file, {}, pace)
        found[name] = Environment.parse(file.read_text(encoding="utf-8"))
    found["none"] = Environment(environment="x", gate="x")
    return {
        f"{origin} {name}": strategy
        for origin, environment in found.items()
        for name, strategy in environment.strategies.items()
        if strategy.watch_seconds
    }


NAMES = ("production default", "development watched", "fast watched", "none default")


@pytest.fixture(scope="module")
def strategies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Strategy]:
    return shipped(tmp_path_factory.mktemp("shipped"))


def watched(
    strategy: Strategy,
    *,
    per_second: float,
    share: tuple[float, float],
    seed: int = 1,
    expected: Expected | None = None,
    noise: Noise = "poisson",
) -> FamilyReading:
    """Watch traffic of which a part is refused, before and after publish; the load stays."""
    rng = np.random.default_rng(seed)
    step = strategy.scrape_seconds
    before = round(strategy.baseline_seconds / step)
    after = round(strategy.watch_seconds / step)
    drawn = counts(
        rng, noise, per_second=per_second, before=before, change=Change(), after=after, runs=1, interval_s=step
    )
    total = drawn[0].astype(np.int64)
    refused = rng.binomial(total, np.r_[np.full(before, share[0]), np.full(after, share[1])])
    moments = PUBLISH + step * (np.arange(before + after) - before + 0.5)
    matrix = [
        {
            "metric": {"job": "policy-engine", "instance": "a", "decision": decision},
            "values": [[float(t), str(v)] for t, v in zip(moments, 1000 + np.cumsum(events), strict=True)],
        }
        for decision, events in (("allow", total - refused), ("deny", refused))
    ]
    plans = plan(strategy, float(strategy.watch_seconds), {"deny_share": expected} if expected else {})
    family = FamilyWatch.begin(
        dict.fromkeys(plans, matrix), plans, publish_s=PUBLISH, level_s=float(strategy.baseline_seconds)
    )
    now = PUBLISH
    while now < PUBLISH + strategy.watch_seconds + step and not family.alarmed:
        now += step
        family.advance(now)
    return family.look() if family.alarmed else family.finish()


def test_these_are_all_of_them(strategies: dict[str, Strategy]) -> None:
    assert tuple(strategies) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_it_watches_the_rate_and_the_share(strategies: dict[str, Strategy], name: str) -> None:
    plans = plan(strategies[name], 60.0, {})
    assert {quantity: one.measure for quantity, one in plans.items()} == {"evaluations": "rate", "deny_share": "share"}
    assert "evaluations (rate), deny_share (share)" in strategies[name].words()


@pytest.mark.parametrize("name", NAMES)
def test_what_the_bench_simulates_is_what_it_says(strategies: dict[str, Strategy], name: str) -> None:
    plans = plan(strategies[name], 60.0, {})
    rate, share = plans["evaluations"].parameters, plans["deny_share"].parameters
    assert (rate.min_rate, share.min_rate) == (cells.RATE_SLACK, cells.SHARE_SLACK)
    assert {(p.alpha, p.delta, p.direction) for p in (rate, share)} == {(0.01, 0.1, "both")}
    strategy = strategies[name]
    scrapes = (
        round(strategy.baseline_seconds / strategy.scrape_seconds),
        round(strategy.watch_seconds / strategy.scrape_seconds),
    )
    weight = plans["evaluations"].weight
    assert (*scrapes, strategy.scrape_seconds, weight) in {
        (c.before, c.after, c.interval_s, c.weight_total) for c in cells.slack_cells() if c.group == "shipped"
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_load_of_which_suddenly_most_is_refused_is_an_anomaly(strategies: dict[str, Strategy], name: str) -> None:
    for seed in range(5):
        found = watched(strategies[name], per_second=20.0, share=(0.09, 0.91), seed=seed)
        assert found.verdict is Verdict.ANOMALY
        assert found.reason.startswith("deny_share changed by the factor")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "per_second", [0.0, pytest.param(0.05, marks=pytest.mark.slow), 2.0, pytest.param(20.0, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3])
def test_harmless_traffic_is_never_an_anomaly(
    strategies: dict[str, Strategy], name: str, per_second: float, share: float
) -> None:
    for seed in range(3):
        found = watched(strategies[name], per_second=per_second, share=(share, share), seed=seed)
        assert found.verdict is not Verdict.ANOMALY, (seed, found.reason)


UNCORRELATED: tuple[Noise, ...] = ("nb1.5", "nb3", "drift")
CORRELATED: tuple[Noise, ...] = ("ar", "slow ar", "season")
"""Over longer than a stack's own baseline of half a minute: docs/watch.md, What is not covered."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "noise"),
    [(name, noise) for name in NAMES for noise in UNCORRELATED]
    + [(name, noise) for name in ("production default", "none default") for noise in CORRELATED],
)
@pytest.mark.parametrize("per_second", [0.05, 20.0])
def test_harmless_traffic_of_every_kind_is_never_an_anomaly(
    strategies: dict[str, Strategy], name: str, noise: Noise, per_second: float
) -> None:
    for seed in range(4):
        found = watched(strategies[name], per_second=per_second, share=(0.1, 0.1), seed=seed, noise=noise)
        assert found.verdict is not Verdict.ANOMALY, (seed, found.reason)


def test_what_was_predicted_is_no_anomaly_and_what_is_beyond_it_is_one(strategies: dict[str, Strategy]) -> None:
    strategy = strategies["production default"]
    for share, expected in ((0.25, Verdict.OK), (0.6, Verdict.ANOMALY)):
        found = watched(strategy, per_second=20.0, share=(0.1, share), expected=Expected(up=3.0))
        assert found.verdict is expected, found.reason


NO_CHANGE = "no change beyond what is tolerated, and a rise by the factor 2 would have been seen"


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        (Strategy(measure="rate"), f"watched: evaluations (rate) only: {NO_CHANGE}"),
        (Strategy(measure="share", min_rate=0.01), f"watched: deny_share (share) only: {NO_CHANGE}"),
        (
            Environment(environment="x", gate="x").strategies["default"],
            f"watched: evaluations (rate) and deny_share (share): {NO_CHANGE}",
        ),
    ],
)
def test_an_ok_names_exactly_what_was_watched(strategy: Strategy, words: str) -> None:
    found = watched(strategy, per_second=20.0, share=(0.1, 0.1))
    assert (found.verdict, found.reason) == (Verdict.OK, words)


def test_an_ok_says_of_what_is_not_required_that_it_might_have_missed_a_change(strategies: dict[str, Strategy]) -> None:
    found = watched(strategies["development watched"], per_second=20.0, share=(0.02, 0.02))
    assert found.verdict is Verdict.OK
    assert found.reason.startswith(
        f"watched: evaluations (rate): {NO_CHANGE}; deny_share (share) raised no alarm, but "
    )
    assert "undetectable in this bake" in found.reason
