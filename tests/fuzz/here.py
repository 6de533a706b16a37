"""Changed inputs in this process."""

import random

from tests.fuzz.kinds import REFUSALS, kinds
from tests.fuzz.mutations import mutated
from tests.fuzz.table import Table


def fuzz_here(inputs: int, seed: int, table: Table) -> None:
    """Read changed inputs of every kind, as many of each."""
    every = kinds()
    for number, (name, kind) in enumerate(every.items()):
        rng = random.Random(f"{seed} {name}")  # noqa: S311 - to be repeated
        genuine = kind.read(kind.genuine)
        for _ in range(inputs // len(every) + (number < inputs % len(every))):
            data = mutated(rng, kind.genuine)
            if data != kind.genuine:
                table.judge(name, data, kind.read, genuine, REFUSALS)
