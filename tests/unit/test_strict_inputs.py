"""No model takes a value of another JSON type for its own, nor a number or a bare date for a time.

The table is every model of the product, found by import; what a field may take is read here from its annotation alone,
not from the validator that is checked.
"""

import importlib
import itertools
import json
import pkgutil
import types
import typing
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from enum import Enum
from typing import Any

import pytest
import typer
from pydantic import AwareDatetime, BaseModel, ValidationError

from constitution import times
from constitution.api import LeaseRelease, LeaseRequest, StandingRequest
from constitution.messages import UpdateRequest
from constitution.model import Model
from constitution.policy.evaluation import EvaluationRequest
from constitution_client.verbs.runs import moment

PACKAGES = ("constitution", "signatures", "adapters", "activities", "workflows", "services", "constitution_client")
NO_TIMES = (
    "20261201",
    "20261201.5",
    "2026-12-01",
    "2026-12-01T10:00:00",
    "2026-12-01T10:00:00z+1",
    "2026-W49-2T10:00:00Z",
    "1764583200",
    "1e9",
    "9999-12-31T23:59:59-05:00",
    "0001-01-01T00:00:00+05:00",
    "2026-02-30T10:00:00Z",
    "2026-12-01T25:00:00Z",
    "2026-12-01T10:00:00+24:00",
    "\u0662026-12-01T10:00:00Z",
)
GOOD_DAYS = ("2026-12-01",)
GOOD_TIMES = (
    "2026-12-01T10:00:00Z",
    "2026-12-01T10:00:00+00:00",
    "2026-12-01T10:00:00.123456-05:30",
    "2026-12-01T10:00Z",
    "2026-12-01 10:00:00Z",
    "2026-12-01t10:00:00z",
)
SCALARS: tuple[Any, ...] = (True, False, 0, 1, 1.0, 1.5, 20261201, 1e9, "1", "true", "100", *NO_TIMES, *GOOD_TIMES)
ONLY_IN_PYTHON: tuple[Any, ...] = (b"1", date(2026, 12, 1), datetime(2026, 12, 1, tzinfo=UTC))


def every_model() -> list[type[Model]]:
    for package in PACKAGES:
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    found: list[type[Model]] = []
    waiting: list[type[Model]] = [Model]
    while waiting:
        for child in waiting.pop().__subclasses__():
            if child.__module__.startswith(PACKAGES):
                found.append(child)
            waiting.append(child)
    return sorted(set(found), key=lambda model: (model.__module__, model.__qualname__))


def admits(annotation: Any, value: Any) -> bool:
    """Whether a field of this annotation may take this scalar, limits apart."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Annotated, typing.Union, types.UnionType):
        parts = typing.get_args(annotation)
        return any(admits(part, value) for part in (parts[:1] if origin is typing.Annotated else parts))
    if origin is typing.Literal:
        return any(type(one) is type(value) and one == value for one in typing.get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return any(type(one.value) is type(value) and one.value == value for one in annotation)
    if annotation in (date, datetime, AwareDatetime):
        texts, kind = (GOOD_DAYS, date) if annotation is date else (GOOD_TIMES, datetime)
        return value in texts or type(value) is kind
    if annotation is bytes:
        return isinstance(value, (bytes, str))  # base64 in JSON
    return annotation is Any or type(value) is annotation or (annotation is float and type(value) is int)


def slots(annotation: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (annotation of a scalar, function that wraps a scalar for the field), through lists and mappings."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        yield from slots(parts[0])
    elif origin in (typing.Union, types.UnionType):
        yield annotation, lambda value: value
        for part in parts:
            if typing.get_origin(part) in (tuple, list, dict, Mapping):
                yield from itertools.islice(slots(part), 1, None)
    elif origin in (tuple, list) and (origin is list or parts[1:] == (...,)):
        yield annotation, lambda value: value
        for inner, wrap in slots(parts[0]):
            yield inner, lambda value, wrap=wrap: [wrap(value)]
    elif origin in (dict, Mapping):
        yield annotation, lambda value: value
        for inner, wrap in slots(parts[1]):
            yield inner, lambda value, wrap=wrap: {"a": wrap(value)}
    else:
        yield annotation, lambda value: value


def refused(model: type[BaseModel], field: str, value: Any, *, as_json: bool) -> bool:
    try:
        if as_json:
            model.model_validate_json(json.dumps({field: value}))
        else:
            model.model_validate({field: value})
    except ValidationError as error:
        return any(problem["loc"][:1] == (field,) for problem in error.errors())
    return False


@pytest.mark.parametrize("model", every_model(), ids=lambda model: f"{model.__module__}.{model.__qualname__}")
def test_no_model_takes_one_type_for_another(model: type[Model]) -> None:
    hints = typing.get_type_hints(model, include_extras=True)
    taken = []
    for field in model.model_fields:
        for annotation, wrap in slots(hints[field]):
            for value in (*SCALARS, *ONLY_IN_PYTHON):
                if admits(annotation, value):
                    continue
                ways = (False,) if value in ONLY_IN_PYTHON else (True, False)
                taken += [
                    (field, wrap(value), "JSON" if as_json else "Python")
                    for as_json in ways
                    if not refused(model, field, wrap(value), as_json=as_json)
                ]
    assert taken == []


def test_the_table_holds_the_models_that_people_reach() -> None:
    names = {model.__name__ for model in every_model()}
    assert {
        "UpdateRequest",
        "EvaluationRequest",
        "SessionRequest",
        "LoadRequest",
        "TrustPolicy",
        "Environment",
    } <= names
    assert len(names) > 100


@pytest.mark.parametrize("text", NO_TIMES)
def test_what_is_no_time_is_refused_with_the_form_that_is_wanted(text: str) -> None:
    request = {"checksum": "sha256:" + "a" * 64, "change_request": "CR-1", "not_before": text}
    with pytest.raises(ValidationError, match=r"2026-11-22T10:00:00Z"):
        UpdateRequest.model_validate_json(json.dumps(request))
    with pytest.raises(ValidationError, match=r"2026-11-22T10:00:00Z"):
        EvaluationRequest.model_validate({"tenant": "t", "time": text})
    with pytest.raises(ValueError, match=r"2026-11-22T10:00:00Z"):
        times.checked(text)


@pytest.mark.parametrize("text", GOOD_TIMES)
def test_a_time_with_its_offset_is_taken_as_it_is_written(text: str) -> None:
    wanted = datetime.fromisoformat(text.upper())
    assert EvaluationRequest.model_validate({"tenant": "t", "time": text}).time == wanted
    assert EvaluationRequest.model_validate_json(json.dumps({"tenant": "t", "time": text})).time == wanted
    assert times.checked(text) == wanted


def test_a_time_of_the_product_itself_comes_back_the_same() -> None:
    moment = datetime(2026, 12, 1, 10, 0, 0, 1, tzinfo=UTC)
    request = EvaluationRequest(tenant="t", time=moment)
    assert EvaluationRequest.model_validate_json(request.model_dump_json()) == request
    assert EvaluationRequest.model_validate(request.model_dump(mode="json")) == request


@pytest.mark.parametrize("text", NO_TIMES)
def test_the_command_line_takes_the_same_times(text: str) -> None:
    with pytest.raises(typer.BadParameter, match=r"2026-11-22T10:00:00Z"):
        moment(text, "--not-before")


@pytest.mark.parametrize("text", GOOD_TIMES)
def test_the_command_line_reads_a_time_as_it_is_written(text: str) -> None:
    assert moment(text, "--not-before") == datetime.fromisoformat(text.upper())


@pytest.mark.parametrize("number", [-1, 2**53, 2**63, 10**30])
@pytest.mark.parametrize(
    ("body", "name", "more"),
    [
        (LeaseRequest, "undoes", {"kind": "rollback"}),
        (LeaseRelease, "fencing_token", {}),
        (StandingRequest, "fencing_token", {"standing": "withdrawn", "reason": "r"}),
    ],
)
def test_a_number_that_no_database_holds_is_refused(
    body: type[Model], name: str, more: dict[str, Any], number: int
) -> None:
    said = {"update_id": "00000000-0000-4000-8000-000000000001", **more}
    body.model_validate_json(json.dumps(said | {name: 2**53 - 1}))
    with pytest.raises(ValidationError, match=name):
        body.model_validate_json(json.dumps(said | {name: number}))
