"""JUnit XML as pytest writes it for the gate's suites, for tests that bring evidence of their own."""

from collections.abc import Sequence
from xml.sax.saxutils import quoteattr


def junit_of(suite: str, results: Sequence[tuple[str, str | None]], *, served: str) -> bytes:
    """Return a suite's results: (case, why it failed or None), and which bytes it looked at."""
    lines = [f'<properties><property name="served" value={quoteattr(served)}/></properties>']
    for name, problem in results:
        failure = "" if problem is None else f"<failure message={quoteattr(problem)}/>"
        lines.append(f"<testcase name={quoteattr(name)}>{failure}</testcase>")
    failures = sum(problem is not None for _, problem in results)
    head = f'<testsuite name="{suite}" tests="{len(results)}" failures="{failures}" errors="0" skipped="0">'
    return f"<testsuites>{head}{''.join(lines)}</testsuite></testsuites>".encode()
