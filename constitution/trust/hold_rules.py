"""What keeps a release from being confirmed until a person says so, and how an order to resume names it.

A hold is an operator's order, or a watch whose verdict the strategy holds for a person. An order to resume names in its
step the one that it answers: what is held later, and another verdict, it does not end.
"""

from collections.abc import Sequence

from constitution.api import OrderRecord
from constitution.messages import Held

_HOLD, _WATCH = "hold-", "watch-"


def step_of_hold(digest: str) -> str:
    """Return how an order to resume names an operator's order to hold, by that order's digest."""
    return f"{_HOLD}{digest}"


def step_of_watch(evidence: str | None) -> str:
    """Return how an order to resume names a watch, by the digest of its evidence; None: nothing was stored of it."""
    return f"{_WATCH}{evidence or 'without-evidence'}"


def standing_holds(orders: Sequence[OrderRecord], *, promoters: int) -> tuple[Held, ...]:
    """Return the operators' holds that nobody has ended, oldest first.

    Args:
        orders: that were accepted for one update, oldest first.
        promoters: so many people's orders to promote, given after a hold, end it, too.
    """
    resumed = {said.step for said in orders if said.order == "resume"}
    found = []
    for at, said in enumerate(orders):
        if said.order != "hold" or step_of_hold(said.digest) in resumed:
            continue
        if len({after.person for after in orders[at + 1 :] if after.order == "promote"}) < promoters:
            found.append(Held(name=step_of_hold(said.digest), why=held_by(said.person, said.reason)))
    return tuple(found)


def held_by(person: str | None, reason: str) -> str:
    """Return in words who holds a release, and why; None: nobody signed it."""
    return f"held by {person or 'an unsigned message'}: {reason}"


def answered_watches(orders: Sequence[OrderRecord]) -> frozenset[str]:
    """Return the digests of the evidence of watches that somebody has resumed."""
    names = [said.step for said in orders if said.order == "resume" and said.step is not None]
    return frozenset(name.removeprefix(_WATCH) for name in names if name.startswith(_WATCH))
