"""Whether two documents have the same rules, however they are written: a digest of what decides a request. Pure.

In it: the default effect, and of each rule the effect, the severity and the *parsed* condition. Not in it: what people
read (version, title, summary, principles, ids, messages, dates), and what changes no decision: white space, comments,
parentheses and quotes in CEL, the order of rules and their repetition, and the order and repetition of what ``&&`` and
``||`` join (CEL gives both operators the same value either way, errors included).

It finds what is the same, not what means the same: ``amount > 5.0`` and ``5.0 < amount`` are two rules. Whoever wants
to hide a rule can; who repeats one under another version is found.
"""

import json
from collections.abc import Iterator
from typing import Any

from constitution.checksum import checksum_of
from constitution.policy import cel_ast
from constitution.policy.document import Constitution
from constitution.policy.expressions import compile_expression

_JOINED = frozenset({"_&&_", "_||_"})
_CHILDREN = {
    "select_expr": ("operand",),
    "call_expr": ("target", "args"),
    "list_expr": ("elements",),
    "struct_expr": ("entries",),
    "comprehension_expr": ("iter_range", "accu_init", "loop_condition", "loop_step", "result"),
}


def rules_digest(document: Constitution) -> str:
    """Return the digest of a document's rules; equal for documents with the same rules, by no other criterion."""
    rules = {(rule.effect.value, rule.severity, canonical(rule.when).hex()) for rule in document.rules}
    said = {"default_effect": document.default_effect.value, "rules": sorted(rules)}
    return checksum_of(json.dumps(said, separators=(",", ":")).encode())


def canonical(expression: str) -> bytes:
    """Return bytes that two expressions share when they are parsed to the same tree.

    Raises:
        ValueError: it does not compile.
    """
    return _canonical(cel_ast.Tree(compile_expression(expression).serialize()).root)


def _canonical(node: Any) -> bytes:
    """Recursion is bounded: protobuf reads at most 100 levels."""
    kind = cel_ast.kind_of(node)
    own = type(node)()
    own.CopyFrom(node)
    own.ClearField("id")  # numbers the nodes as they are written
    if kind in _CHILDREN:
        for name in _CHILDREN[kind]:
            getattr(own, kind).ClearField(name)
    parts = [own.SerializeToString(deterministic=True)]  # with the fields that cel_ast does not declare
    if kind == "call_expr" and node.call_expr.function in _JOINED:
        joined = sorted(set(_joined(node, node.call_expr.function)))
        if len(joined) == 1:
            return joined[0]
        parts += joined
    else:
        receiver = kind == "call_expr" and node.call_expr.HasField("target")
        parts.append(b"receiver" if receiver else b"")
        parts += [_canonical(child) for child in cel_ast.children(node)]
    return b"".join(len(part).to_bytes(4) + part for part in parts)


def _joined(node: Any, function: str) -> Iterator[bytes]:
    for child in cel_ast.children(node):
        if cel_ast.kind_of(child) == "call_expr" and child.call_expr.function == function:
            yield from _joined(child, function)
        else:
            yield _canonical(child)
