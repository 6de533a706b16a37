"""When a live watch asks Prometheus again: as soon as the next scrape can be judged, never in a hurry for nothing."""

import math
import time

from activities.watch.live import SLACK_S, LiveWatch, Matrices
from activities.watch.plan import plan
from activities.watch.watch import pause
from constitution.environment import Strategy
from constitution.watch.quantities import QUANTITIES

STEP_S = 1.0
BAKE_S = 30
NOTHING_NEW: Matrices = {quantity.metric: [] for quantity in QUANTITIES.values()}


def _live(published: float) -> LiveWatch:
    values = [[published - 60 + second, str(10 * second)] for second in range(60)]
    strategy = Strategy(watch_seconds=BAKE_S, baseline_seconds=30, scrape_seconds=STEP_S)
    watched = plan(strategy, BAKE_S, {})
    before = {QUANTITIES[name].metric: [{"metric": {"decision": "allow"}, "values": values}] for name in watched}
    return LiveWatch(before, watched, published_s=published, end_s=published + BAKE_S, level_s=30.0, left_out=[])


def test_the_next_look_is_half_a_scrape_after_the_next_tick() -> None:
    live = _live(1_000_000.0)
    first = live.watch.origin_s + STEP_S
    assert live.due_s() == first + 0.5 * STEP_S + SLACK_S
    live.advance(NOTHING_NEW, first + STEP_S)
    assert live.due_s() == first + 2 * STEP_S + 0.5 * STEP_S + SLACK_S


def test_after_the_last_tick_nothing_is_due() -> None:
    live = _live(1_000_000.0)
    live.advance(NOTHING_NEW, live.end_s + 2 * STEP_S)
    assert live.due_s() == math.inf


def test_a_tick_that_is_due_is_waited_for_no_longer_than_that() -> None:
    live = _live(time.time())
    assert 0.2 <= pause(live, STEP_S, over=False, blind=False) <= STEP_S


def test_a_tick_that_is_overdue_is_looked_at_soon_but_not_without_apause() -> None:
    assert pause(_live(time.time() - 10), STEP_S, over=False, blind=False) == 0.2


def test_a_silent_prometheus_is_not_asked_more_often() -> None:
    assert pause(_live(time.time() - 10), STEP_S, over=False, blind=True) == STEP_S
    assert pause(None, 300.0, over=False, blind=False) == 5.0
