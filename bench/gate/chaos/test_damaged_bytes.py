"""A gate of one fault, for measuring what comes after the gate: bytes that were damaged on the way are refused."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from constitution.checksum import checksum_of
from constitution.errors import InvalidDocumentError
from constitution.policy.document import parse

DRAFT = Path(os.environ["CONSTITUTION_DRAFT"]).read_bytes()


@pytest.fixture(scope="session", autouse=True)
def _served(record_testsuite_property: Callable[[str, object], None]) -> None:
    record_testsuite_property("served", checksum_of(DRAFT))


@pytest.mark.parametrize("kept", [0.0, 0.25, 0.5, 0.75, 0.99])
def test_a_truncated_document_is_refused(kept: float) -> None:
    with pytest.raises(InvalidDocumentError):
        parse(DRAFT[: int(len(DRAFT) * kept)])
