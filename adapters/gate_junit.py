"""Reads the JUnit XML that pytest wrote: counts, what did not pass and why, and which bytes were served.

The file comes from a subprocess and is treated as hostile: size cap before parsing, no document type, no
entities (defusedxml). Counts are taken from the cases themselves and must agree with the file's own totals.
Format: pytest ``--junit-xml``, family xunit2.
"""

import xml.etree.ElementTree as ET
from dataclasses import dataclass

import defusedxml.ElementTree
from defusedxml import DefusedXmlException

MAX_JUNIT = 8 * 1024 * 1024  # bytes; a run of 5,000 cases with a failure each is about 4 MiB
SERVED = "served"
"""Suite property under which the tests record the checksum of the bytes they looked at; may repeat."""

_MESSAGE = 600  # characters of one case's message that reach a person


class UnreadableJUnitError(ValueError):
    """The file is no JUnit XML, is too large, or contradicts itself."""


@dataclass(frozen=True, slots=True)
class FailedCase:
    """One case that did not pass.

    Args:
        case: the test's name with its parameters, e.g. ``test_golden_decision[…]``.
        what: ``failed``, ``error`` or ``skipped`` (an expected failure is reported as skipped, too).
        message: why, shortened.
    """

    case: str
    what: str
    message: str


@dataclass(frozen=True, slots=True)
class JUnit:
    """What one run of pytest counted."""

    tests: int
    failures: int
    errors: int
    skipped: int
    seconds: float
    failed: tuple[FailedCase, ...]
    served: tuple[str, ...]


def _shorten(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _MESSAGE else text[: _MESSAGE - 1] + "…"


def _reason(element: ET.Element) -> str:
    message = element.get("message") or ""
    if message in {"", "collection failure"}:  # then only the text says why: its last lines of errors
        lines = (element.text or "").strip().splitlines()
        errors = [line.removeprefix("E").strip() for line in lines if line.startswith("E ")]
        message = f"{message}: {' '.join(errors or lines[-3:])}".removeprefix(": ")
    # pytest appends the bare expression to what the test says about it.
    return _shorten(message.split("\nassert ")[0] or "no message")


def _suites(data: bytes) -> list[ET.Element]:
    if len(data) > MAX_JUNIT:
        raise UnreadableJUnitError(f"the JUnit file has {len(data)} bytes; at most {MAX_JUNIT} are read")
    try:
        root = defusedxml.ElementTree.fromstring(data, forbid_dtd=True)
    except (ET.ParseError, DefusedXmlException, ValueError) as error:
        raise UnreadableJUnitError(f"the JUnit file cannot be read: {error!r}") from error
    suites = [root] if root.tag == "testsuite" else root.findall("testsuite")
    if not suites:
        raise UnreadableJUnitError("the JUnit file holds no test suite")
    return suites


def _total(suites: list[ET.Element], name: str) -> float:
    try:
        return sum(float(suite.get(name, "0")) for suite in suites)
    except ValueError as error:
        raise UnreadableJUnitError(f"the JUnit file's {name} is no number") from error


def read_junit(data: bytes) -> JUnit:
    """Read a JUnit file.

    Raises:
        UnreadableJUnitError: more than `MAX_JUNIT` bytes, no XML, entities or a document type in it, or totals
            that differ from the cases listed.
    """
    suites = _suites(data)
    cases = [case for suite in suites for case in suite.findall("testcase")]
    failed = tuple(
        FailedCase(case.get("name", "?"), what, _reason(element))
        for case in cases
        for tag, what in (("failure", "failed"), ("error", "error"), ("skipped", "skipped"))
        for element in case.findall(tag)
    )
    counted = {what: sum(case.what == what for case in failed) for what in ("failed", "error", "skipped")}
    for name, what in (("failures", "failed"), ("errors", "error"), ("skipped", "skipped")):
        if _total(suites, name) != counted[what]:
            raise UnreadableJUnitError(f"the JUnit file's total of {name} is not the {counted[what]} that it lists")
    served = [item.get("value", "") for suite in suites for item in suite.findall("properties/property")
              if item.get("name") == SERVED]  # fmt: skip
    return JUnit(
        # A case whose test and whose teardown both went wrong is listed twice by pytest.
        tests=len({(case.get("classname"), case.get("name")) for case in cases}),
        failures=counted["failed"],
        errors=counted["error"],
        skipped=counted["skipped"],
        seconds=_total(suites, "time"),
        failed=failed,
        served=tuple(dict.fromkeys(served)),
    )
