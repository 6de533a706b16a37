"""Reads the checked syntax tree that the CEL compiler serialises, as far as our limits need it.

``Expression.serialize()`` of cel-expr-python gives a ``google.protobuf.Any`` of ``cel.expr.CheckedExpr``. The few
messages below are declared with the field numbers of google/cel-spec, proto/cel/expr/{checked,syntax}.proto; every
other field is skipped by protobuf. Declared as proto2 (same wire format), where every field has presence.
"""

from typing import Any

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory

_FIELD = descriptor_pb2.FieldDescriptorProto
_MESSAGES: dict[str, tuple[tuple[str, int, str], ...]] = {
    "Checked": (("references", 2, "Reference*"), ("expr", 4, "Expr")),
    "Reference": (("key", 1, "int64"), ("value", 2, "Target")),
    "Target": (("overload_id", 3, "string*"),),
    "Constant": (("string_value", 6, "string"),),
    "Ident": (("name", 1, "string"),),
    "Select": (("operand", 1, "Expr"),),
    "Call": (("target", 1, "Expr"), ("function", 2, "string"), ("args", 3, "Expr*")),
    "CreateList": (("elements", 1, "Expr*"),),
    "Entry": (("map_key", 3, "Expr"), ("value", 4, "Expr")),
    "CreateStruct": (("entries", 2, "Entry*"),),
    "Comprehension": (
        ("iter_range", 2, "Expr"),
        ("accu_init", 4, "Expr"),
        ("loop_condition", 5, "Expr"),
        ("loop_step", 6, "Expr"),
        ("result", 7, "Expr"),
    ),
    "Expr": (
        ("id", 2, "int64"),
        ("const_expr", 3, "Constant"),
        ("ident_expr", 4, "Ident"),
        ("select_expr", 5, "Select"),
        ("call_expr", 6, "Call"),
        ("list_expr", 7, "CreateList"),
        ("struct_expr", 8, "CreateStruct"),
        ("comprehension_expr", 9, "Comprehension"),
    ),
}
_SCALARS = {"int64": _FIELD.TYPE_INT64, "string": _FIELD.TYPE_STRING}


def _checked_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="constitution/cel_ast.proto", package="cel_ast", syntax="proto2")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field_name, number, declared in fields:
            repeated, kind = declared.endswith("*"), declared.rstrip("*")
            field = message.field.add(
                name=field_name, number=number, label=_FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
            )
            if kind in _SCALARS:
                field.type = _SCALARS[kind]
            else:
                field.type = _FIELD.TYPE_MESSAGE
                field.type_name = f".cel_ast.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("cel_ast.Checked"))


_CHECKED = _checked_class()


class Tree:
    """A checked expression: its root and, per node, the overloads that the type checker chose."""

    def __init__(self, serialized: bytes) -> None:
        """Read ``Expression.serialize()``.

        Raises:
            google.protobuf.message.DecodeError: deeper than protobuf reads (100), or another format.
        """
        checked = _CHECKED.FromString(any_pb2.Any.FromString(serialized).value)
        self.root = checked.expr
        self._overloads = {reference.key: tuple(reference.value.overload_id) for reference in checked.references}

    def overloads(self, node: Any) -> tuple[str, ...]:
        """Return the overload ids of a call, e.g. ``("add_string",)``; more than one when types are dynamic."""
        return self._overloads.get(node.id, ())


def renamed(serialized: bytes, before: tuple[str, str], after: tuple[str, str]) -> bytes | None:
    """Return a serialised expression with one function called by another name; None where it is not called.

    Args:
        serialized: of ``Expression.serialize()``. What this module does not declare is kept as it is.
        before: the function and the overload that the type checker chose.
        after: what takes their places.

    Raises:
        google.protobuf.message.DecodeError: deeper than protobuf reads (100), or another format.
    """
    whole = any_pb2.Any.FromString(serialized)
    checked = _CHECKED.FromString(whole.value)
    called = {reference.key for reference in checked.references if before[1] in reference.value.overload_id}
    if not called:
        return None
    for reference in checked.references:
        if reference.key in called:
            ids = reference.value.overload_id
            ids[list(ids).index(before[1])] = after[1]
    _rename(checked.expr, called, before[0], after[0])
    whole.value = checked.SerializeToString()
    return bytes(whole.SerializeToString())


def _rename(node: Any, called: set[int], before: str, after: str) -> None:
    """Recursion is bounded: protobuf reads at most 100 levels."""
    if kind_of(node) == "call_expr" and node.id in called and node.call_expr.function == before:
        node.call_expr.function = after
    for child in children(node):
        _rename(child, called, before, after)


def kind_of(node: Any) -> str | None:
    """Return which kind of expression a node is, e.g. ``call_expr``; None for a kind this module does not know."""
    for name, _, _ in _MESSAGES["Expr"][1:]:
        if node.HasField(name):
            return name
    return None


def children(node: Any) -> list[Any]:
    """Return the direct sub-expressions of a node."""
    match kind_of(node):
        case "select_expr":
            return [node.select_expr.operand]
        case "call_expr":
            call = node.call_expr
            return ([call.target] if call.HasField("target") else []) + list(call.args)
        case "list_expr":
            return list(node.list_expr.elements)
        case "struct_expr":
            entries = node.struct_expr.entries
            return [e.map_key for e in entries if e.HasField("map_key")] + [e.value for e in entries]
        case "comprehension_expr":
            c = node.comprehension_expr
            return [c.iter_range, c.accu_init, c.loop_condition, c.loop_step, c.result]
        case _:
            return []
