"""One scratch environment for the whole suite; each test leaves it as healthy as it found it.

Stands alone: nothing outside the gate's folder is used but the product itself and the scratch servers it starts.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1]))

from chaos.decisions import Expected
from chaos.stack import Stack, running
from policy.drafts import Draft, under_test

from constitution.checksum import checksum_of


@pytest.fixture(scope="session")
def draft() -> Draft:
    """The draft; in a normal test run the first of the shipped templates."""
    return under_test()[0]


@pytest.fixture(scope="session")
def stack(draft: Draft) -> Iterator[Stack]:
    """The scratch environment, serving what the draft would replace, or nothing yet."""
    with running(draft) as stack:
        yield stack


@pytest.fixture(scope="session")
def live(stack: Stack, record_testsuite_property: Callable[[str, object], None]) -> Stack:
    """The scratch environment with the draft live on both engines; the gate's report says which bytes were served."""
    stack.go_live()
    record_testsuite_property("served", checksum_of(stack.served()))
    return stack


@pytest.fixture(scope="session")
def expected(draft: Draft) -> Expected:
    """The domain's own decisions."""
    return Expected.of(draft)
