"""Names for people, bounded: the first few, and how many others there are."""

from collections.abc import Iterable
from heapq import nsmallest

NAMED = 20
"""Names in one sentence, report or heartbeat; whoever has more targets reads a count, and the list in the store."""


def first_names(names: Iterable[str], most: int = NAMED) -> tuple[str, ...]:
    """Return the first names in alphabetical order, at most so many."""
    return tuple(nsmallest(most, names))


def named(names: Iterable[str], others: int = 0, most: int = NAMED) -> str:
    """Return ``a, b and 4,321 others``.

    Args:
        names: in their order.
        others: how many there are beside them.
        most: of the names that are written out.
    """
    shown = tuple(names)
    others += max(len(shown) - most, 0)
    shown = shown[:most]
    if not others:
        return ", ".join(shown)
    rest = f"{others:,} {'others' if shown else 'targets'}" if others != 1 else "1 other" if shown else "1 target"
    return f"{', '.join(shown)} and {rest}" if shown else rest
