"""From a strategy to what is watched: which quantities, at which tolerance, against which expected change. Pure."""

from collections.abc import Mapping

from constitution.environment import Strategy, WatchedQuantity
from constitution.watch.prediction import Expected
from constitution.watch.quantities import QUANTITIES, quantity_of
from constitution.watch.spike import SpikeParameters
from constitution.watch.watching_family import Watched


def quantities(strategy: Strategy) -> tuple[WatchedQuantity, ...]:
    """Return what a strategy watches: its list, or the one quantity of its measure."""
    return strategy.quantities or (WatchedQuantity(quantity=quantity_of(strategy.measure)),)


def plan(strategy: Strategy, bake_s: float, expected: Mapping[str, Expected]) -> dict[str, Watched]:
    """Return how each quantity is judged.

    Args:
        strategy: of the release.
        bake_s: length of the watch in seconds.
        expected: the approved change of each predicted quantity. A rate has none: a replay does not predict how often
            agents ask.
    """
    listed = quantities(strategy)
    total = sum(watched.weight for watched in listed)
    found: dict[str, Watched] = {}
    for watched in listed:
        measure = QUANTITIES[watched.quantity].measure
        shift = expected.get(watched.quantity, Expected()) if measure == "share" else Expected()
        slack = strategy.min_rate if watched.min_rate is None else watched.min_rate
        parameters = SpikeParameters(
            alpha=strategy.alpha,
            delta=strategy.delta if watched.delta is None else watched.delta,
            min_rate=slack + shift.added,
            direction=watched.direction or strategy.direction,
            scrape_interval_s=strategy.scrape_seconds,
            bake_s=bake_s,
            expected_up=shift.up,
            expected_down=shift.down,
        )
        found[watched.quantity] = Watched(
            measure=measure, weight=watched.weight / total, parameters=parameters, required=watched.required
        )
    return found
