"""A few hundred changed inputs in every test run; ten thousand, also at the real service: `make fuzz`."""

from tests.fuzz.here import fuzz_here
from tests.fuzz.table import Table


def test_a_few_hundred_changed_inputs_mean_what_was_signed_or_nothing() -> None:
    table = Table()
    fuzz_here(200, 20261130, table)
    assert table.findings == []
    assert sum(table.counts.values()) > 150
