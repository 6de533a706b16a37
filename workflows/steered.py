"""What people have said about a release's confirmation: hold it, go on, or do not wait for the watch."""

from dataclasses import dataclass


@dataclass(slots=True)
class Steered:
    """State of ``hold``, ``resume`` and ``promote`` in one run.

    Args:
        held: why it must not be confirmed; None: nobody holds it.
        promoted: by whose signed order it is confirmed without waiting for the watch.
        resumed: why a hold was ended.
    """

    held: str | None = None
    promoted: str | None = None
    resumed: str | None = None

    def released(self) -> bool:
        """Whether nothing that a person said keeps the release from being confirmed."""
        return self.held is None or self.promoted is not None
