"""Two gates for tests that need a release and test something else; each looks at the very draft, and says what it saw.

`make_gate` writes the smallest folder that the worker's own gate runner takes: pytest in a sandbox, seconds a draft.
`examine` does as much in this process, in milliseconds, and reports it as JUnit: what a release's evidence names was
really tried on its bytes. The product's gate is tests/policy and tests/chaos.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final
from xml.sax.saxutils import quoteattr

from constitution.checksum import checksum_of
from constitution.errors import ConstitutionError
from constitution.policy.document import parse
from constitution.policy.golden import Vector
from constitution.policy.rules import Policy
from tests.world.documents import RULES, VECTORS, content

DIGEST: Final = checksum_of(Path(__file__).read_bytes())

GATE_CASE = '''
"""The smallest gate that is one: it reads the draft, and says so."""

import hashlib
import json
import os
import pathlib

import pytest

DRAFT = pathlib.Path(os.environ["CONSTITUTION_DRAFT"]).read_bytes()


@pytest.fixture(scope="session", autouse=True)
def served(record_testsuite_property):
    record_testsuite_property("served", "sha256:" + hashlib.sha256(DRAFT).hexdigest())


def test_the_draft_has_rules_and_says_no_by_default():
    draft = json.loads(DRAFT)
    assert draft["rules"]
    assert draft["default_effect"] == "deny"
'''
GOLDEN = """
[[case]]
name = "nothing at all"
request = {}

[[case]]
name = "a payment"
request = { tool = "payments.transfer", action = "pay" }
"""


def make_gate(folder: Path) -> None:
    """Write a gate of one real case a suite, and golden requests."""
    for suite in ("policy", "chaos"):
        (folder / suite).mkdir(parents=True, exist_ok=True)
        (folder / suite / "test_draft.py").write_text(GATE_CASE)
    (folder / "policy" / "cases").mkdir(exist_ok=True)
    (folder / "policy" / "cases" / "golden.toml").write_text(GOLDEN)


@dataclass(frozen=True)
class Suite:
    """What one suite saw of a draft: each case, and why it failed or None."""

    name: str
    cases: tuple[tuple[str, str | None], ...]
    seconds: float
    served: str

    @property
    def failures(self) -> int:
        return sum(problem is not None for _, problem in self.cases)

    @property
    def junit(self) -> bytes:
        """As pytest writes it for the product's gate."""
        return junit_of(self.name, self.cases, served=self.served)


def examine(draft: bytes, suite: str) -> Suite:
    """Try one suite on a draft: ``policy`` asks the domain, ``chaos`` damages copies, which must be refused."""
    began = time.perf_counter()
    cases = tuple({"policy": _policy, "chaos": _chaos}[suite](draft))
    return Suite(suite, cases, time.perf_counter() - began, checksum_of(draft))


def _policy(draft: bytes) -> Iterator[tuple[str, str | None]]:
    policy: list[Policy] = []
    yield "compiles", _problem(lambda: policy.append(Policy.compile(parse(draft))))
    vectors: tuple[Vector, ...] = VECTORS if content(draft)["rules"] == list(RULES) else ()
    for compiled in policy:
        for vector in vectors:
            yield vector.name, vector.mismatch(compiled.evaluate(vector.request))


def _chaos(draft: bytes) -> Iterator[tuple[str, str | None]]:
    damaged = {
        "cut in half": draft[: len(draft) // 2],
        "a key twice": draft.replace(b'"title"', b'"version": "9.9.9", "title"', 1),
        "a bit flipped": b"\xff" + draft[1:],
        "an unknown field": draft.replace(b'"title"', b'"surprise": 1, "title"', 1),
    }
    for name, data in damaged.items():
        yield name, None if _problem(partial(parse, data)) else "was accepted"


def _problem(attempt: Callable[[], object]) -> str | None:
    try:
        attempt()
    except ConstitutionError as error:
        return error.message
    return None


def junit_of(suite: str, results: Sequence[tuple[str, str | None]], *, served: str) -> bytes:
    """Return a suite's results: (case, why it failed or None), and which bytes it looked at."""
    lines = [f'<properties><property name="served" value={quoteattr(served)}/></properties>']
    for name, problem in results:
        failure = "" if problem is None else f"<failure message={quoteattr(problem)}/>"
        lines.append(f"<testcase name={quoteattr(name)}>{failure}</testcase>")
    failures = sum(problem is not None for _, problem in results)
    head = f'<testsuite name="{suite}" tests="{len(results)}" failures="{failures}" errors="0" skipped="0">'
    return f"<testsuites>{head}{''.join(lines)}</testsuite></testsuites>".encode()
