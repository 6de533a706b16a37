"""Golden cases and invariants as policy authors write them: TOML files under ``cases/`` and ``invariants/``.

A *case* is keyed to a rule: it is run against every constitution that has a rule of that id, and says which decision
that very rule must make of one request. ``rule = "default"`` is for requests that no rule matches. An *invariant* is
keyed to nothing: it holds for every constitution, over every combination of the values it lists.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from constitution import toml
from constitution.errors import InvalidRequestError
from constitution.model import Model
from constitution.policy.evaluation import Decision, EvaluationRequest

HERE = Path(__file__).parent
DEFAULT_RULE = "default"
MAX_COMBINATIONS = 2000  # of one invariant: 2,000 decisions take about half a second

# What a case need not say: an agent of the tenant `global`, on a Wednesday morning, doing nothing in particular.
DEFAULTS: dict[str, Any] = {
    "tenant": "global",
    "user": "user-1",
    "agent": "agent-1",
    "time": "2026-03-04T10:00:00Z",
}


class _CaseEntry(Model):
    """One ``[[case]]``."""

    name: str
    rule: str
    decision: Decision
    request: dict[str, Any]
    needs: tuple[str, ...] = ()  # rules that must be in the document, too, for the case to apply


class _InvariantEntry(Model):
    """One ``[[invariant]]``; each value of ``request`` is a list, and every combination is asked."""

    name: str
    why: str
    never: Annotated[tuple[Decision, ...], Field(min_length=1)]
    request: Annotated[dict[str, Annotated[list[Any], Field(min_length=1)]], Field(min_length=1)]


class _CaseFile(Model):
    case: Annotated[tuple[_CaseEntry, ...], Field(min_length=1)]


class _InvariantFile(Model):
    invariant: Annotated[tuple[_InvariantEntry, ...], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class Case:
    """One golden decision; ``rule`` is None when the default effect must decide."""

    name: str
    rule: str | None
    decision: Decision
    request: EvaluationRequest
    needs: tuple[str, ...]

    @property
    def id(self) -> str:
        """Return the name in reports: rule, decision, and what the author called it."""
        return f"{self.rule or DEFAULT_RULE}-{self.decision.value}-{self.name}".replace(" ", "_")

    def applies_to(self, rules: frozenset[str]) -> bool:
        """Whether a constitution with these rule ids must pass this case."""
        return (self.rule is None or self.rule in rules) and rules.issuperset(self.needs)


@dataclass(frozen=True, slots=True)
class Invariant:
    """Decisions that no constitution may make of any of the requests."""

    name: str
    why: str
    never: tuple[Decision, ...]
    requests: tuple[EvaluationRequest, ...]

    @property
    def id(self) -> str:
        """Return the name in reports."""
        return self.name.replace(" ", "_")


def _request(values: dict[str, Any], where: str) -> EvaluationRequest:
    try:
        return EvaluationRequest.model_validate(DEFAULTS | values)
    except ValidationError as error:
        raise ValueError(f"{where}: request is not of schema v1: {error}") from error


def _read(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(folder.glob("*.toml")):
        try:
            yield path.name, toml.read(path.read_text(encoding="utf-8"), what=path.name)
        except (InvalidRequestError, UnicodeDecodeError) as error:
            raise ValueError(f"{path.name} cannot be read: {error}") from error


@cache
def load_cases(folder: Path = HERE / "cases") -> tuple[Case, ...]:
    """Read every case.

    Raises:
        ValueError: a file is not of the shape, or two cases have the same rule, decision and name.
    """
    cases = [
        Case(
            entry.name,
            None if entry.rule == DEFAULT_RULE else entry.rule,
            entry.decision,
            _request(entry.request, f"{name}: case {entry.name!r}"),
            entry.needs,
        )
        for name, data in _read(folder)
        for entry in _CaseFile.model_validate(data).case
    ]
    ids = [case.id for case in cases]
    if twice := sorted({identity for identity in ids if ids.count(identity) > 1}):
        raise ValueError("cases of the same name: " + ", ".join(twice))
    return tuple(cases)


@cache
def load_invariants(folder: Path = HERE / "invariants") -> tuple[Invariant, ...]:
    """Read every invariant.

    Raises:
        ValueError: a file is not of the shape, or lists more than `MAX_COMBINATIONS` requests.
    """
    invariants = []
    for name, data in _read(folder):
        for entry in _InvariantFile.model_validate(data).invariant:
            where = f"{name}: invariant {entry.name!r}"
            combinations = list(itertools.product(*entry.request.values()))
            if len(combinations) > MAX_COMBINATIONS:
                raise ValueError(f"{where} lists {len(combinations)} requests; at most {MAX_COMBINATIONS}")
            requests = tuple(_request(dict(zip(entry.request, values, strict=True)), where) for values in combinations)
            invariants.append(Invariant(entry.name, entry.why, entry.never, requests))
    return tuple(invariants)
