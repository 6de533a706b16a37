"""Which cells there are: generated from situations, steps, the systems each step touches, and the faults of each.

The full product has thousands of cells. `matrix` picks a covering array by greed: first every pair of values, then as
many triples as the size allows. The same seed gives the same cells with the same ids, for ever.
Source of the method: Cohen et al., "The AETG System", IEEE TSE 23(7), 1997.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from functools import cache
from itertools import combinations
from typing import Final

SEED: Final = 20261122
SIZE: Final = 240

Key = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One fault at one moment of one step.

    Args:
        situation: what is being done.
        step: of the runbook, at which the fault happens.
        system: what is hit: a process, a connection, or a disk.
        fault: what happens to it.
        moment: before the step's side effect, while it happens, or after it, before its result is known.
    """

    situation: str
    step: str
    system: str
    fault: str
    moment: str

    @property
    def id(self) -> str:
        """Stable: a digest of what the cell is."""
        return hashlib.sha256("/".join(asdict(self).values()).encode()).hexdigest()[:8]

    def values(self) -> tuple[tuple[str, str], ...]:
        """(factor, value) of each factor."""
        return tuple((f.name, getattr(self, f.name)) for f in fields(self))


UPDATE_STEPS: Final = (
    "request", "signatures", "gate", "board", "stage", "validate", "lease", "publish", "prove", "sync", "watch",
    "confirm", "broadcast", "archive",
)  # fmt: skip
ROLLBACK_STEPS: Final = ("request", "lease", "publish", "prove", "sync", "confirm", "broadcast", "archive")
BEFORE_CONFIRMATION: Final = ("publish", "prove", "sync", "watch", "confirm")

SITUATIONS: Final[dict[str, tuple[str, ...]]] = {
    "first_release": tuple(step for step in UPDATE_STEPS if step != "watch"),  # nothing to compare with yet
    "update": UPDATE_STEPS,
    "rollback": ROLLBACK_STEPS,
    # At this step a person changes their mind: a rollback where the update has published, an abort where it has not.
    "rollback_during_update": BEFORE_CONFIRMATION,
    "rollback_of_rollback": ROLLBACK_STEPS,
}

# Which systems a step touches (docs/architecture.md §3); every step also needs Temporal and a worker.
ALWAYS: Final = ("temporal", "worker")
TOUCHES: Final[dict[str, tuple[str, ...]]] = {
    "request": ("constitution-service", "postgres"),
    "signatures": ("constitution-service", "postgres"),
    "gate": ("assessor", "constitution-service", "artifact-store", "policy-engine-1"),
    "board": ("slack", "constitution-service"),
    "stage": ("constitution-service", "artifact-store", "postgres"),
    "validate": ("constitution-service", "postgres"),
    "lease": ("constitution-service", "postgres"),
    "publish": ("constitution-service", "postgres", "valkey", "kafka", "artifact-store"),
    "prove": ("constitution-service", "postgres", "postgres-reader", "valkey", "kafka"),
    "sync": ("assessor", "constitution-service", "policy-engine-1", "orchestrator-1", "orchestrator-2", "kafka"),
    "watch": ("assessor", "prometheus", "constitution-service"),
    "confirm": ("constitution-service", "postgres"),
    "broadcast": ("slack", "postgres-reader", "kafka"),
    "archive": ("archive", "siem-forwarder", "kafka", "constitution-service"),
}

NETWORK: Final = ("down", "slow", "reset", "half_open")
PROCESS: Final = ("killed", "stopped")
FAULTS: Final[dict[str, tuple[str, ...]]] = {
    # twice: SIGSTOP past every heartbeat while a second worker takes over; then it wakes, late, with its answers.
    "worker": (*PROCESS, "twice"),
    "assessor": PROCESS,
    "temporal": (*PROCESS, *NETWORK),
    "constitution-service": (*PROCESS, *NETWORK, "late", "disk_full"),
    "postgres": (*PROCESS, *NETWORK, "disk_full"),
    "postgres-reader": NETWORK,
    "valkey": (*PROCESS, *NETWORK, "late"),
    "kafka": (*PROCESS, *NETWORK, "disk_full"),
    "prometheus": (*PROCESS, *NETWORK),
    "slack": (*NETWORK, "stopped"),  # its emulator keeps messages in memory: killing it is no fault Slack can have
    "artifact-store": (*PROCESS, *NETWORK, "disk_full"),
    "siem-forwarder": PROCESS,
    "policy-engine-1": (*PROCESS, *NETWORK),
    "orchestrator-1": (*PROCESS, *NETWORK),
    "orchestrator-2": (*PROCESS, *NETWORK),
    "archive": ("down", "locked"),
}
MOMENTS: Final = ("before", "during", "after")

# Steps whose work is one request that a wire can hold at an exact point; elsewhere `late` has nothing to hold.
HELD: Final = {
    "constitution-service": (
        "request", "signatures", "stage", "validate", "lease", "publish", "confirm", "broadcast"
    ),
    "valkey": ("publish",),  # the relay's write of the new generation
}  # fmt: skip


def space() -> Iterator[Cell]:
    """Every cell that makes sense, in a fixed order."""
    for situation, steps in SITUATIONS.items():
        for step in steps:
            for system in (*ALWAYS, *TOUCHES[step]):
                for fault in FAULTS[system]:
                    for moment in MOMENTS:
                        cell = Cell(situation, step, system, fault, moment)
                        if fault != "late" or (step in HELD[system] and moment == "before"):
                            yield cell


@cache
def matrix(size: int = SIZE, seed: int = SEED) -> tuple[Cell, ...]:
    """The cells of the matrix: all pairs, then as many triples as fit.

    Args:
        size: how many cells; less than pairs need is an error.
        seed: of the order in which equally good cells are taken.

    Raises:
        ValueError: `size` is too small for every pair.
    """
    candidates = list(space())
    random.Random(seed).shuffle(candidates)  # noqa: S311 - a reproducible order, no secret
    chosen = _cover(candidates, 2, size)
    if len(chosen) == size and _uncovered(candidates, chosen, 2):
        raise ValueError(f"{size} cells do not hold every pair")
    rest = [cell for cell in candidates if cell not in set(chosen)]
    return tuple(chosen + _cover(rest, 3, size - len(chosen), already=chosen))


def _cover(candidates: list[Cell], strength: int, size: int, already: list[Cell] | None = None) -> list[Cell]:
    combined = {cell: frozenset(combinations(cell.values(), strength)) for cell in candidates}
    missing = set[Key]().union(*combined.values())
    for cell in already or []:
        missing -= set(combinations(cell.values(), strength))
    chosen: list[Cell] = []
    left = list(candidates)
    while missing and len(chosen) < size:
        best = max(left, key=lambda cell: len(combined[cell] & missing))
        chosen.append(best)
        missing -= combined[best]
        left = [cell for cell in left if cell != best and combined[cell] & missing]
    return chosen


def _uncovered(candidates: list[Cell], chosen: list[Cell], strength: int) -> set[Key]:
    found = set[Key]().union(*(combinations(cell.values(), strength) for cell in candidates))
    return found.difference(*(combinations(cell.values(), strength) for cell in chosen))


def find(identity: str) -> Cell:
    """The cell of this id, also one that the matrix did not pick.

    Raises:
        LookupError: there is none.
    """
    for cell in space():
        if cell.id == identity:
            return cell
    raise LookupError(f"there is no cell {identity}")


def shard(cells: tuple[Cell, ...], part: str) -> tuple[Cell, ...]:
    """The cells of shard ``i/n`` (1/4 … 4/4).

    Raises:
        ValueError: not of that form.
    """
    first, _, last = part.partition("/")
    number, of = int(first), int(last or "1")
    if not 1 <= number <= of:
        raise ValueError(f"SHARD is i/n with 1 ≤ i ≤ n, not {part!r}")
    return tuple(cell for index, cell in enumerate(cells) if index % of == number - 1)


def in_turn(cells: tuple[Cell, ...]) -> list[Cell]:
    """The order in which a shard runs: a first release needs a new environment, in which the cells after it run."""
    firsts = [cell for cell in cells if cell.situation == "first_release"]
    others = [cell for cell in cells if cell.situation != "first_release"]
    if not firsts:
        return others
    share = -(-len(others) // len(firsts))
    ordered: list[Cell] = []
    for index, first in enumerate(firsts):
        ordered += [first, *others[index * share : (index + 1) * share]]
    return ordered


# Without one of these no target can obey in time; an update is then undone, rightly.
OBEYING: Final = ("constitution-service", "postgres", "kafka", *("policy-engine-1", "orchestrator-1", "orchestrator-2"))


def allowed(cell: Cell) -> frozenset[str]:
    """Outcomes that are right for the run that is hit.

    A fault that ends within the retries must stop nothing. Where targets cannot obey within the sync's deadline, an
    update is undone; a Prometheus that does not answer may stop or undo a watched one; a person who changed their
    mind must be obeyed, or come too late. From the confirmation on nothing is undone.
    """
    if cell.situation == "rollback_during_update":
        return frozenset({"completed", "rejected", "rolled_back"})
    if cell.situation in ("rollback", "rollback_of_rollback"):
        return frozenset({"rolled_back"})
    if cell.system == "prometheus":
        return frozenset({"completed", "rejected", "rolled_back"})
    if cell.step in ("publish", "prove", "sync") and cell.system in OBEYING:
        return frozenset({"completed", "rolled_back"})
    return frozenset({"completed"})
