"""The language of a rule's ``when``: CEL over request schema v1, within limits that make its cost bounded.

Source: github.com/google/cel-spec, doc/langdef.md; engine: cel-expr-python (Google's cel-cpp). Limits beyond its own
(parse depth 32, iteration budget, RE2): at most 4096 characters, a static type of bool, no macro inside a macro,
literal lists and maps of at most 256 entries, regular expressions only as literals that RE2 takes, at most 8 of them,
of bounded size and none inside a macro, and no text joined inside a macro. Together they bound time and memory of one
rule without running it. A rule means one thing on every host: functions are a closed list, time zones literal offsets.
RE2 is linear in the prompt, but what a wide pattern costs per character only the regression gate measures
(tests/policy/test_budget.py).
"""

import re
from dataclasses import dataclass
from typing import Any

from cel_expr_python import cel
from google.protobuf.message import DecodeError

from constitution.errors import Issue
from constitution.policy import cel_ast, matching
from constitution.policy.patterns import expanded_size

MAX_EXPRESSION = 4096  # characters; bounds every other cost of a rule (docs/adr/0005-cel.md)
MAX_LIST = 256  # entries; a macro costs at most so many times the rule's length
MAX_PATTERN_SIZE = 1000  # characters with repetitions written out; our examples have fewer than 500
MAX_PATTERNS = 8  # a wide pattern may take a second on the longest prompt, and the engine's budget does not count it

_TYPE = cel.Type
REQUEST_VARIABLES: dict[str, Any] = {
    "tenant": _TYPE.STRING,
    "user": _TYPE.STRING,
    "agent": _TYPE.STRING,
    "action": _TYPE.STRING,
    "tool": _TYPE.STRING,
    "amount": _TYPE.DOUBLE,
    "currency": _TYPE.STRING,
    "data_class": _TYPE.STRING,
    "prompt": _TYPE.STRING,
    "time": _TYPE.TIMESTAMP,
}
"""What a rule may read, with its CEL type. ``amount`` is a double: compare it with ``100.0``, not ``100``."""

ENVIRONMENT: Any = cel.NewEnv(variables=REQUEST_VARIABLES)
"""The one CEL environment that judges rules; compiling in it is thread-safe (tests/unit/test_rules.py)."""

RUNTIME: Any = matching.runtime(REQUEST_VARIABLES)
"""Where they are evaluated, from several threads at once (the same test): activations are made in it."""

_CLOCK_PARTS = frozenset(
    {
        "getFullYear",
        "getMonth",
        "getDate",
        "getDayOfMonth",
        "getDayOfWeek",
        "getDayOfYear",
        "getHours",
        "getMinutes",
        "getSeconds",
        "getMilliseconds",
    }
)
FUNCTIONS = _CLOCK_PARTS | {
    *("_&&_", "_||_", "!_", "_?_:_", "_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_", "@in", "_[_]"),
    *("_+_", "_-_", "_*_", "_/_", "_%_", "-_", "@not_strictly_false"),
    *("contains", "startsWith", "endsWith", "matches", "size"),
    *("bool", "bytes", "double", "duration", "dyn", "int", "string", "timestamp", "type", "uint"),
}
"""Every function and operator of the language that a rule may call (cel-spec, doc/langdef.md, standard definitions).

Closed: each gives the same answer on every host, once its time zone is a literal offset. A function that a later engine
adds is looked at for that first.
"""

_OFFSET = re.compile(r"UTC|[+-](0[0-9]|1[0-3]):[0-5][0-9]|[+-]14:00")
"""Time zones that mean one thing on every host and every day. Names are looked up in the host's own database, if it
has one: ``localtime`` is another zone on each machine, and laws change what a place's name means."""

_PATTERN_TEST: Any = cel.NewEnv(variables={"pattern": _TYPE.STRING}).compile("''.matches(pattern)")
_JOINS = frozenset({"add_string", "add_bytes"})


@dataclass(frozen=True, slots=True)
class ExpressionResult:
    """What one expression said: ``matched`` only for the boolean true; ``error`` when CEL gave an error value."""

    matched: bool
    error: bool


class BudgetExceededError(Exception):
    """The engine stopped the evaluation: its iteration budget or a limit of its own is used up."""


def compile_expression(text: str) -> Any:
    """Compile without our limits; callers that take text from a document use `check_expression` first.

    Raises:
        ValueError: with the compiler's words.
    """
    try:
        return ENVIRONMENT.compile(text)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ValueError(_first_line(str(error))) from error


def executable(text: str) -> Any:
    """Compile an expression to be evaluated in ``RUNTIME``.

    Raises:
        ValueError: as ``compile_expression``, or it is nested deeper than protobuf reads.
    """
    return matching.ready(compile_expression(text), RUNTIME)


def run(expression: Any, activation: Any) -> ExpressionResult:
    """Evaluate one compiled expression.

    Run-time errors of the engine are *values* of type ERROR whose plain value is a truthy text, so the type is
    looked at first. An exception of the engine is never an error of the rule: the engine gave up.

    Raises:
        BudgetExceededError: the engine gave up.
    """
    try:
        value = expression.eval(activation)
        kind = value.type()
        if kind == _TYPE.BOOL:
            return ExpressionResult(matched=value.plain_value() is True, error=False)
    except Exception as error:  # the engine raises for a spent budget only, in types of its own; that denies
        raise BudgetExceededError(_first_line(str(error))) from error
    return ExpressionResult(matched=False, error=kind in (_TYPE.ERROR, _TYPE.UNKNOWN))


def run_list(expression: Any, activation: Any) -> list[bool] | None:
    """Evaluate a list expression of booleans at once; None when any element failed, so that each must be asked."""
    try:
        value = expression.eval(activation)
        if value.type() in (_TYPE.ERROR, _TYPE.UNKNOWN):
            return None
        plain = value.plain_value()
    except Exception:  # noqa: BLE001 - one by one, `run` says what it was
        return None
    return plain if isinstance(plain, list) else None


def check_expression(text: str, path: str) -> tuple[Issue, ...]:
    """Return every reason why ``text`` may not be a rule's ``when``; empty if it may.

    Args:
        text: CEL.
        path: JSON pointer of the expression, for the issues.
    """
    if len(text) > MAX_EXPRESSION:
        return (Issue(code="cel-too-long", path=path, message=f"{len(text)} characters; at most {MAX_EXPRESSION}"),)
    try:
        expression = compile_expression(text)
        serialized = expression.serialize()
        kind = expression.return_type()
    except (ValueError, RuntimeError) as error:
        message = f"does not compile: {_first_line(str(error))}"
        return (Issue(code="cel-compile", path=path, message=message, hint=_hint(message)),)
    issues = []
    if kind != _TYPE.BOOL:
        issues.append(Issue(code="cel-type", path=path, message=f"is of type {kind.name()}, must be bool"))
    try:
        tree = cel_ast.Tree(serialized)
    except DecodeError:
        issues.append(Issue(code="cel-too-deep", path=path, message="is nested too deep; split the rule"))
        return tuple(issues)
    found: dict[str, Issue] = {}
    _walk(tree, tree.root, path, found, inside_macro=False)
    patterns = _count_patterns(tree.root)
    if patterns > MAX_PATTERNS:
        message = f"uses matches() {patterns} times; at most {MAX_PATTERNS}"
        found["cel-patterns"] = Issue(code="cel-patterns", path=path, message=message, hint="join them with |")
    return (*issues, *found.values())


def _walk(tree: cel_ast.Tree, node: Any, path: str, found: dict[str, Issue], *, inside_macro: bool) -> None:
    """Collect one issue per code. Recursion is bounded: protobuf reads at most 100 levels."""
    match cel_ast.kind_of(node):
        case None:
            found["cel-unknown"] = Issue(code="cel-unknown", path=path, message="uses a form that is not supported")
        case "comprehension_expr":
            if inside_macro:
                message = "uses a macro (all, exists, exists_one, map, filter) inside a macro"
                found["cel-nested-macro"] = Issue(code="cel-nested-macro", path=path, message=message)
            inside_macro = True
        case "list_expr":
            _check_size(len(node.list_expr.elements), path, found)
        case "struct_expr":
            _check_size(len(node.struct_expr.entries), path, found)
        case "call_expr":
            _check_call(tree, node, path, found, inside_macro=inside_macro)
    for child in cel_ast.children(node):
        _walk(tree, child, path, found, inside_macro=inside_macro)


def _count_patterns(node: Any) -> int:
    own = cel_ast.kind_of(node) == "call_expr" and node.call_expr.function == "matches"
    return own + sum(map(_count_patterns, cel_ast.children(node)))


def _check_size(size: int, path: str, found: dict[str, Issue]) -> None:
    if size > MAX_LIST:
        message = f"holds a list or map of {size} entries; at most {MAX_LIST}"
        found["cel-list-too-long"] = Issue(code="cel-list-too-long", path=path, message=message)


def _check_call(tree: cel_ast.Tree, node: Any, path: str, found: dict[str, Issue], *, inside_macro: bool) -> None:
    call = node.call_expr
    if call.function not in FUNCTIONS:
        message = f"calls {call.function[:64]}, which is no function of rules"
        found["cel-function"] = Issue(code="cel-function", path=path, message=message)
    elif call.function in _CLOCK_PARTS and call.args:
        _check_zone(call.args[-1], path, found)
    elif call.function == "matches":
        if inside_macro:
            message = "uses matches() inside a macro"
            found["cel-pattern-in-macro"] = Issue(
                code="cel-pattern-in-macro",
                path=path,
                message=message,
                hint="match once with a|b|c, or use contains, startsWith or endsWith",
            )
        pattern = call.args[-1]
        if not (pattern.HasField("const_expr") and pattern.const_expr.HasField("string_value")):
            message = "the pattern of matches() must be a text literal"
            found["cel-pattern"] = Issue(code="cel-pattern", path=path, message=message)
        elif (size := expanded_size(pattern.const_expr.string_value)) > MAX_PATTERN_SIZE:
            message = f"a pattern has {size} characters with its repetitions written out; at most {MAX_PATTERN_SIZE}"
            found["cel-pattern-size"] = Issue(
                code="cel-pattern-size", path=path, message=message, hint="use smaller counts, as in {1,20}"
            )
        elif _PATTERN_TEST.eval(data={"pattern": pattern.const_expr.string_value}).type() != _TYPE.BOOL:
            message = f"the pattern {pattern.const_expr.string_value[:64]!r} is no RE2 regular expression"
            found["cel-pattern"] = Issue(
                code="cel-pattern", path=path, message=message, hint="RE2 has no look-around and no back-references"
            )
    elif call.function == "_+_" and inside_macro and not _JOINS.isdisjoint(tree.overloads(node)):
        message = "joins text inside a macro"
        found["cel-join"] = Issue(code="cel-join", path=path, message=message)


def _check_zone(zone: Any, path: str, found: dict[str, Issue]) -> None:
    literal = zone.const_expr.string_value if cel_ast.kind_of(zone) == "const_expr" else None
    if literal is None or not _OFFSET.fullmatch(literal):
        problem = "is not a text literal" if literal is None else f"is {literal[:64]!a}"
        message = f"a time zone {problem}; it must be an offset from UTC, from -14:00 to +14:00, or UTC"
        hint = 'names of places depend on the host: write time.getHours("+01:00")'
        found["cel-time-zone"] = Issue(code="cel-time-zone", path=path, message=message, hint=hint)


def _hint(message: str) -> str:
    if "(double, int)" in message or "(int, double)" in message:
        return "amount is a double: write 100.0 instead of 100"
    return "rules may read " + ", ".join(REQUEST_VARIABLES)


def _first_line(text: str) -> str:
    """Return the compiler's first line without its status prefix."""
    line = text.strip().splitlines()[0] if text.strip() else "no reason given"
    return line.removeprefix("INVALID_ARGUMENT: ").removeprefix("ERROR: ").replace("<input>:", "")[:300]
