"""What keeps a release from being confirmed until a person says so: operators' holds, and a verdict held for a person.

Each has a name, and an order to resume names the one that it answers (constitution/trust/hold_rules.py): so what comes
later, another hold or another verdict, takes an order of its own.
"""

from collections.abc import Sequence

from constitution.messages import Held
from workflows.status import Journal


class Holds:
    """The holds of one run, and how people ended them; ``status`` shows what stands.

    Args:
        journal: where they become visible.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._by_people: tuple[Held, ...] = ()
        self._by_watch: Held | None = None
        self._answered: set[str] = set()
        self.promoted: str | None = None
        """By whose signed order it is confirmed without waiting for the watch."""
        self.resumed: str | None = None
        """Who ended a hold last, and why."""

    @property
    def first(self) -> Held | None:
        """What the next order to resume answers; None: nothing is held."""
        standing = self._journal.status.held
        return standing[0] if standing else None

    def released(self) -> bool:
        """Whether nothing keeps the release from being confirmed."""
        return self.first is None or self.promoted is not None

    def changed_since(self, shown: Held) -> bool:
        """Whether this is not what is waited for any more."""
        return self.released() or self.first != shown

    def add(self, *held: Held) -> None:
        """Take operators' holds; the same one again changes nothing."""
        known = {one.name for one in self._by_people}
        self._by_people += tuple(one for one in held if one.name not in known)
        self._show()

    def of_watch(self, held: Held) -> None:
        """Hold for a verdict of the watch, instead of for an earlier one; one that was answered is not asked again."""
        self._by_watch = None if held.name in self._answered else held
        self._show()

    def forget_answers(self) -> None:
        """Ask about a verdict again: constitution-service knows of no answer."""
        self._answered.clear()

    def resume(self, name: str, by: str) -> None:
        """End the hold of this name; ``by``: who did, and why."""
        self._answered.add(name)
        self._by_people = tuple(one for one in self._by_people if one.name != name)
        if self._by_watch is not None and self._by_watch.name == name:
            self._by_watch = None
        self.resumed = by
        self._show()

    def _show(self) -> None:
        by_watch: Sequence[Held] = () if self._by_watch is None else (self._by_watch,)
        self._journal.set(held=(*self._by_people, *by_watch))
