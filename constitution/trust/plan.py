"""What a decision binds beside the document: which run makes it live, where, when, and how it is watched."""

from pydantic import AwareDatetime

from constitution.environment import Identifier, Strategy
from constitution.model import Model
from constitution.release import UpdateId


class Plan(Model):
    """How an update will go live. The board signs all of it, so neither a run's starter nor a worker can change it.

    Args:
        update_id: the one update that these decisions are for; those of an aborted run count for no other.
        strategy: the strategy's name in environment.toml.
        watch: its resolved content, as it was when the run began.
        rings: where the release goes live.
        not_before: it goes live at this moment at the earliest; null: as soon as it may.
    """

    update_id: UpdateId
    strategy: Identifier
    watch: Strategy
    rings: tuple[Identifier, ...]
    not_before: AwareDatetime | None = None

    def lines(self, *, first: bool) -> tuple[str, ...]:
        """Return it in words, for the person who is asked to sign it.

        Args:
            first: whether nothing is live before: then there is no baseline to watch against.
        """
        watch = "a first release has no baseline: not watched" if first else f"{self.strategy}: {self.watch.words()}"
        moment = "as soon as it may" if self.not_before is None else f"not before {self.not_before.isoformat()}"
        return (
            f"watch          {watch}",
            f"goes live      {moment}, in {', '.join(self.rings)}",
            f"update         {self.update_id}",
        )
