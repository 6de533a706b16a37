"""Reads the JUnit XML that pytest wrote: counts, what did not pass and why, and which bytes were served.

The file comes from a subprocess and is treated as hostile: size cap before parsing, no document type, no
entities (defusedxml). Counts are taken from the cases themselves and must agree with the file's own totals.
Format: pytest ``--junit-xml``, family xunit2.
"""

import xml.etree.ElementTree as ET  # noqa: S405 - only for the type; parsing is defusedxml's
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
    return _shorten(element.get("message") or element.text or "no message")


def read_junit(data: bytes) -> JUnit:
    """Read a JUnit file.

    Raises:
        UnreadableJUnitError: more than `MAX_JUNIT` bytes, no XML, entities or a document type in it, or totals
            that differ from the cases listed.
    """
    if len(data) > MAX_JUNIT:
        raise UnreadableJUnitError(f"the JUnit file has {len(data)} bytes; at most {MAX_JUNIT} are read")
    try:
        root = defusedxml.ElementTree.fromstring(data, forbid_dtd=True)
    except (ET.ParseError, DefusedXmlException, ValueError) as error:
        raise UnreadableJUnitError(f"the JUnit file cannot be read: {error!r}") from error
    suites = [root] if root.tag == "testsuite" else root.findall("testsuite")
    if not suites:
        raise UnreadableJUnitError("the JUnit file holds no test suite")
    failed: list[FailedCase] = []
    counts = {"failure": 0, "error": 0, "skipped": 0}
    names: set[tuple[str, str]] = set()
    served: list[str] = []
    seconds = 0.0
    totals = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
    for suite in suites:
        for case in suite.findall("testcase"):
            # A case whose test and teardown both went wrong is listed twice by pytest.
            names.add((case.get("classname", ""), case.get("name", "")))
            for tag, what in (("failure", "failed"), ("error", "error"), ("skipped", "skipped")):
                for element in case.findall(tag):
                    counts[tag] += 1
                    failed.append(FailedCase(case.get("name", "?"), what, _reason(element)))
        served += [item.get("value", "") for item in suite.findall("properties/property[@name='served']")]
        try:
            seconds += float(suite.get("time", "0"))
            for name in totals:
                totals[name] += int(suite.get(name, "0"))
        except ValueError as error:
            raise UnreadableJUnitError(f"the JUnit file has a total that is no number: {error}") from error
    counted = {"failures": counts["failure"], "errors": counts["error"], "skipped": counts["skipped"]}
    for name, value in counted.items():
        if totals[name] != value:
            raise UnreadableJUnitError(f"the JUnit file says {totals[name]} {name} but lists {value}")
    return JUnit(len(names), *counted.values(), seconds, tuple(failed), tuple(dict.fromkeys(served)))
