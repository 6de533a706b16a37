"""Makes a checked expression ready to be asked often: the patterns of its ``matches`` are compiled once.

cel-expr-python 0.1.3 compiles the pattern of each ``matches`` again at every evaluation, which costs more than all the
rest of a decision. So the checked tree's calls of ``matches`` are renamed to a function of ours, which asks RE2, too
(google-re2: Google's binding, with the default options that cel-cpp uses), with a compiled pattern. Which patterns a
rule may have is judged by CEL's own function alone (`constitution.policy.expressions`), and tests/unit/test_matching.py
asks both about the same patterns and texts.
"""

from functools import lru_cache
from typing import Any

import re2
from cel_expr_python import cel
from google.protobuf.message import DecodeError

from constitution.policy import cel_ast

KEPT = 256
"""Compiled patterns that a process keeps; RE2 bounds each to 8 MiB. More than that are compiled at every evaluation."""

# Function and overload; github.com/google/cel-spec, doc/langdef.md. A call without a receiver, matches(text, pattern),
# has another overload and stays CEL's own.
OF_CEL = ("matches", "matches_string")
OURS = ("constitution.matches", "constitution_matches_string")

_OPTIONS = re2.Options()
_OPTIONS.log_errors = False


@lru_cache(maxsize=KEPT)
def _compiled(pattern: str) -> Any:
    return re2.compile(pattern, _OPTIONS)


def _matches(text: str, pattern: str) -> bool:
    return _compiled(pattern).search(text) is not None


def runtime(variables: dict[str, Any]) -> Any:
    """Return the environment in which `ready` expressions run."""
    text, (function, overload) = cel.Type.STRING, OURS
    ours = cel.Overload(overload, cel.Type.BOOL, [text, text], is_member=True, impl=_matches)
    environment = cel.NewEnv(variables=variables, functions=[cel.FunctionDecl(function, [ours])])
    environment.compile("true")  # before it has compiled something, cel-expr-python 0.1.3 takes no datetime
    return environment


def ready(expression: Any, environment: Any) -> Any:
    """Return what the same expression is in `runtime`.

    Raises:
        ValueError: it is nested deeper than protobuf reads.
    """
    serialized = expression.serialize()
    try:
        renamed = cel_ast.renamed(serialized, OF_CEL, OURS)
        return expression if renamed is None else environment.deserialize(renamed)
    except (DecodeError, RuntimeError) as error:
        raise ValueError("nested too deep") from error
