"""A gate of a few cases, for measuring what comes after the gate: the draft decides as its own rules say."""

import os
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from constitution.checksum import checksum_of
from constitution.policy.document import parse
from constitution.policy.evaluation import EvaluationRequest
from constitution.policy.rules import Policy

DRAFT = Path(os.environ["CONSTITUTION_DRAFT"]).read_bytes()
CASES = [
    case for path in sorted((Path(__file__).parent / "cases").glob("*.toml")) for case in tomllib.loads(
        path.read_text("utf-8")
    )["case"]
]  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def _served(record_testsuite_property: Callable[[str, object], None]) -> None:
    record_testsuite_property("served", checksum_of(DRAFT))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_decision(case: dict[str, object]) -> None:
    request = EvaluationRequest.model_validate(case["request"])
    answer = Policy.compile(parse(DRAFT)).evaluate(request)
    assert answer.decision == case["decision"]
    assert answer.errors == 0
