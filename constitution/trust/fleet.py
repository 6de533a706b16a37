"""A set of targets in a few bytes: how many, and a digest of their names.

A signed list of 50,000 targets is seven megabytes in every place that keeps it. The digest proves the same: whoever
knows the names of its own environment computes it, and one name more, less or other gives another digest.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from typing import Annotated, Literal, get_args

from pydantic import Field

from constitution.checksum import Checksum, checksum_of
from constitution.environment import Identifier, TargetSource
from constitution.model import Model

LISTED = 100
"""Targets that a statement lists one by one; of more it says how many, their digest, and the exceptions."""

State = Literal["converged", "lagging", "unreachable"]
Count = Annotated[int, Field(ge=0)]


class TargetReport(Model):
    """What one target said last; null: it did not say."""

    id: Identifier
    state: State
    generation: int | None
    checksum: Checksum | None


class TargetSet(Model):
    """Which targets: how many, and the checksum of their ids in order, each followed by a line feed."""

    count: Count
    ids: Checksum

    @classmethod
    def of(cls, ids: Collection[str]) -> "TargetSet":
        """Return the set of these ids; each counts once."""
        distinct = sorted(set(ids))
        return cls(count=len(distinct), ids=checksum_of("".join(f"{one}\n" for one in distinct).encode()))


class FleetReport(Model):
    """What became of a set of targets that is too large to be listed.

    Args:
        asked: every target that was asked.
        converged: how many of them reported the release that the statement is about.
        lagging: how many reported something else.
        unreachable: how many gave no answer.
        listing: checksum of the list, in the artifact store, of what each one said (``listing``).
    """

    asked: TargetSet
    converged: Count
    lagging: Count
    unreachable: Count
    listing: Checksum

    @classmethod
    def of_listing(cls, data: bytes) -> "FleetReport":
        """Return the report that a list makes.

        Raises:
            ValueError: it is no such list, or names a target twice.
        """
        rows = [line.split("\t") for line in data.decode().splitlines()]
        states = Counter(state for _, state, _, _ in rows)
        asked = TargetSet.of([name for name, _, _, _ in rows])
        if asked.count != len(rows) or not states.keys() <= set(get_args(State)):
            raise ValueError("it names a target twice, or has a state that there is not")
        return cls(
            asked=asked,
            converged=states["converged"],
            lagging=states["lagging"],
            unreachable=states["unreachable"],
            listing=checksum_of(data),
        )

    def problems(self, targets: TargetSet, *, undoes: bool) -> Iterator[str]:
        """Say why it does not show that exactly these targets obey; of an undo, that those obey who answer."""
        if self.asked != targets:
            yield (
                f"it is of {self.asked.count:,} targets ({self.asked.ids}), "
                f"not of the {targets.count:,} of the release's rings ({targets.ids})"
            )
        if self.converged + self.lagging + self.unreachable != self.asked.count:
            yield "its counts do not add up"
        if self.lagging:
            yield f"{self.lagging:,} of its targets are lagging"
        if self.unreachable and not undoes:
            yield f"{self.unreachable:,} of its targets are unreachable"


class Discovered(Model):
    """What became of the targets that one source listed (constitution/target_sources.py).

    Args:
        source: its id in environment.toml.
        fleet: of all that it listed when the assessor asked.
        golden: how many of them decided the golden requests as the domain does.
    """

    source: Identifier
    fleet: FleetReport
    golden: Count = 0

    def problems(self, source: TargetSource, *, undoes: bool, decides: bool) -> Iterator[str]:
        """Say why it does not show that the targets of a source obey, as ``FleetReport.problems``."""
        asked = self.fleet.asked.count
        for problem in self.fleet.problems(self.fleet.asked, undoes=undoes):
            yield f"target source {source.id}: {problem}"
        if asked < source.min_targets:
            yield f"target source {source.id} named {asked:,} targets, fewer than {source.min_targets:,}"
        if decides and source.kind == "policy_engine" and self.golden != asked:
            yield f"{asked - self.golden:,} engines of target source {source.id} were not asked the golden requests"


def listing(targets: Iterable[TargetReport]) -> bytes:
    """Return what each target said, one a line in order of id, tab-separated: id, state, generation, checksum.

    Generation and checksum are empty where it did not say, or converged: then they are those of the release.
    """
    return "".join(f"{line}\n" for line in map(_line, sorted(targets, key=lambda target: target.id))).encode()


def _line(target: TargetReport) -> str:
    if target.state == "converged":
        return f"{target.id}\tconverged\t\t"
    generation = "" if target.generation is None else str(target.generation)
    return f"{target.id}\t{target.state}\t{generation}\t{target.checksum or ''}"


def exceptions(targets: Iterable[TargetReport]) -> tuple[TargetReport, ...]:
    """Return the first ``LISTED`` targets that did not converge."""
    return tuple(islice((target for target in targets if target.state != "converged"), LISTED))
