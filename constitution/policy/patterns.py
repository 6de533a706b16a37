"""How large a regular expression is once its counted repetitions are written out: what RE2 compiles and walks.

RE2 is linear in the text, but ``x{1000}`` written 500 times, which fits a rule, is half a million states: a tenth of a
second to compile, and minutes for one evaluation. Syntax: github.com/google/re2/wiki/Syntax.
"""

import re

_COUNTED = re.compile(r"\{([0-9]{1,9})(?:,([0-9]{0,9}))?\}")


def expanded_size(pattern: str) -> int:
    """Return about how many states a pattern has: one for each character or class, times the counts around it.

    Args:
        pattern: a regular expression; one that RE2 does not take gives some number too.
    """
    totals, last = [0], 0
    position = 0
    while position < len(pattern):
        character = pattern[position]
        counted = _COUNTED.match(pattern, position) if character == "{" else None
        if counted is not None:
            times = max(int(counted[1]), int(counted[2] or 0), 1)
            totals[-1] += last * (times - 1)
            last *= times
            position = counted.end()
            continue
        if character == "(":
            totals.append(0)
            last = 0
        elif character == ")" and len(totals) > 1:
            last = totals.pop()
            totals[-1] += last
        elif character not in "*+?|":
            last = 1
            totals[-1] += 1
        position = _after(pattern, position)
    return sum(totals)


def _after(pattern: str, position: int) -> int:
    """Return where the next item begins; an escape and a class are one item each."""
    if pattern[position] == "\\":
        return position + 2
    if pattern[position] != "[":
        return position + 1
    position += 2 if pattern.startswith("[^", position) else 1
    first = True
    while position < len(pattern) and (first or pattern[position] != "]"):
        named = pattern.find(":]", position) if pattern.startswith("[:", position) else -1
        position = named + 2 if named >= 0 else position + (2 if pattern[position] == "\\" else 1)
        first = False
    return position + 1
