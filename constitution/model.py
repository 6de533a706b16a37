"""The base of every model on a wire: frozen, strict, no unknown field, no clock and no random default.

A default factory that reads a clock or makes a uuid gives another value when a workflow replays, silently;
so there is none in this package.

Strict: a JSON type is never taken for another (``true`` or ``"100"`` is no number, ``1.0`` no integer), and a time is
RFC 3339 (constitution/times.py). pydantic's own strict mode also refuses what JSON and TOML have no type for, lists for
tuples and texts for enumerations and times, wherever a model is made of a decoded value; so it is set per scalar.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from constitution import times

_TIMES = {"datetime": times.checked, "date": times.checked_day}
_SCALARS = frozenset({"bool", "bytes", "int", "float", "str"})
_NO_SCHEMAS = frozenset({"default", "metadata", "serialization", "expected"})
"""Parts of a core schema that hold values, not schemas."""


def _strict(part: Any, owner: type[BaseModel]) -> Any:
    """Return a copy of a core schema, or of a part of one, with strict scalars. Other models have their own."""
    if isinstance(part, list):
        return [_strict(item, owner) for item in part]
    if not isinstance(part, dict):
        return part
    kind = part.get("type")
    if kind == "model" and part["cls"] is not owner:
        return part
    copy = {name: value if name in _NO_SCHEMAS else _strict(value, owner) for name, value in part.items()}
    if isinstance(kind, str) and (checked := _TIMES.get(kind)) is not None:
        return core_schema.no_info_before_validator_function(checked, part)
    if kind == "literal" and any(type(one) is int for one in part["expected"]):
        # pydantic compares by value: 1 == 1.0 == True
        return core_schema.no_info_before_validator_function(_no_bool_for_int, part)
    if isinstance(kind, str) and kind in _SCALARS:
        copy["strict"] = True
    return copy


def _no_bool_for_int(value: Any) -> Any:
    if isinstance(value, (bool, float)):
        raise ValueError(f"is {type(value).__name__}, must be int")  # noqa: TRY004 - pydantic lists ValueErrors only
    return value


class Model(BaseModel):
    """A frozen value that refuses unknown fields (pydantic ``extra="forbid"``) and values of another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_bytes="base64", val_json_bytes="base64")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return the schema with every scalar made strict."""
        schema: CoreSchema = _strict(handler(source), cls)
        return schema


def is_unsaid(value: object) -> bool:
    """Leave out a field that says nothing: null, or an empty list (``Field(exclude_if=is_unsaid)``).

    A field that is added to a signed statement then changes no statement that has no use for it: what was signed
    before it existed is read, and written again, byte for byte.
    """
    return value is None or value == ()
