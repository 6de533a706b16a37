"""Whether a gate's evidence supports a document: one rule for signing and for loading."""

from dataclasses import dataclass

from constitution.api import EvidenceRecord
from constitution.errors import Issue

SUITES = ("chaos", "policy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Supported:
    """The facts that evidence must name."""

    environment: str
    checksum: str | None
    version: str
    previous: str | None
    change_request: str | None


def problems(record: EvidenceRecord, supported: Supported) -> tuple[Issue, ...]:
    """Return every reason why this evidence does not support a release; none: it does."""
    issues = []
    for name in ("environment", "checksum", "version", "previous", "change_request"):
        found, wanted = getattr(record, name), getattr(supported, name)
        if found != wanted:
            message = f"the evidence is for {found}, not for {wanted}"
            issues.append(Issue(code="evidence-of-other", path=f"/{name}", message=message))
    if tuple(sorted(suite.name for suite in record.suites)) != SUITES:
        message = "the evidence must hold the suites policy and chaos, each once"
        issues.append(Issue(code="evidence-suites", path="/suites", message=message))
    for suite in record.suites:
        path = f"/suites/{suite.name}"
        if suite.tests < 1 or suite.failures or suite.errors or suite.skipped:
            counts = (
                f"{suite.tests} tests, {suite.failures} failures, {suite.errors} errors, {suite.skipped} skipped; "
                "it takes at least one test and none of the others"
            )
            issues.append(Issue(code="evidence-failed", path=path, message=f"{suite.name}: {counts}"))
        if suite.served != (record.checksum,):
            message = f"{suite.name} looked at {', '.join(suite.served) or 'no bytes'}, not at {record.checksum} alone"
            issues.append(Issue(code="evidence-of-other", path=f"{path}/served", message=message))
    return tuple(issues)
