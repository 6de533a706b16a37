"""Thousands of changed inputs, seeded: most in this process, the rest at a real constitution-service."""

import os

import pytest

from tests.fuzz.here import fuzz_here
from tests.fuzz.service import fuzz_service
from tests.fuzz.table import Table
from tests.world.author import Author

SEED = int(os.environ.get("SEED") or 20261130)
INPUTS = int(os.environ.get("INPUTS") or 1000)
AT_THE_SERVICE = 0.3  # of all: one takes some milliseconds more there


@pytest.mark.slow
@pytest.mark.timeout(3600)
async def test_no_changed_input_is_accepted_as_something_else_nor_fells_anything(author: Author) -> None:
    table = Table()
    await fuzz_service(author, round(INPUTS * AT_THE_SERVICE), SEED, table)
    fuzz_here(INPUTS - round(INPUTS * AT_THE_SERVICE), SEED, table)
    print(f"\nseed {SEED}, {INPUTS} inputs", *table.lines(), sep="\n")  # noqa: T201 - the command's result
    assert table.findings == []
