"""Whether a document may follow what is live (invariant 5), by kind of release. Reads no clock, disk or network.

*update*: environment, version higher than every version ever live (its own does not count once it was withdrawn, that
is undone for reasons outside of it), ``previous`` = current, not expired and not about to expire. *reissue*: the same
bytes once more, so neither version order nor ``previous`` can be asked of it. *rollback*: only the environment: it
restores what was confirmed, and says so; version order, ``previous`` and expiry are not applied. *withdraw* has no
document. Why these rules: TUF specification 5.3-5.6 (rollback, freeze, mix-and-match). Signatures, evidence, approvals
and "was confirmed before" are asked elsewhere.
"""

from datetime import datetime, timedelta

from constitution.errors import Issue
from constitution.policy.document import Constitution
from constitution.release import Kind, Previous
from constitution.version import Version

ABOUT_TO_EXPIRE = timedelta(hours=24)  # less would expire before a person could answer an alert
CLOCK_SKEW = timedelta(minutes=5)  # an author's clock may be this far ahead of ours


def check(
    document: Constitution,
    *,
    kind: Kind,
    environment: str,
    current: Previous | None,
    highest_version: str | None,
    now: datetime,
) -> tuple[Issue, ...]:
    """Return every reason why ``document`` may not go live as ``kind``; empty if it may.

    Args:
        document: as parsed, so its own limits hold.
        kind: of the release.
        environment: where it shall go live.
        current: what is live there; None before the first release and after a withdraw.
        highest_version: of all that ever were live there, without this document's own once it was withdrawn; or None.
        now: aware.
    """
    if kind is Kind.WITHDRAW:
        return ()
    issues = []
    if document.environment != environment:
        message = f"is for environment {document.environment}, not {environment}"
        issues.append(Issue(code="environment", path="/environment", message=message))
    if kind is Kind.ROLLBACK:
        return tuple(issues)
    if kind is Kind.UPDATE:
        issues += _succession(document, current, highest_version)
    issues += _dates(document, now)
    return tuple(issues)


def _succession(document: Constitution, current: Previous | None, highest_version: str | None) -> list[Issue]:
    issues = []
    if highest_version is not None and Version.parse(document.version) <= Version.parse(highest_version):
        message = f"version {document.version} is not higher than {highest_version}, which has been live"
        issues.append(Issue(code="version-order", path="/version", message=message, hint="give it a higher version"))
    if document.previous != current:
        named = "null" if document.previous is None else f"{document.previous.version} ({document.previous.checksum})"
        live = "nothing is live" if current is None else f"{current.version} ({current.checksum}) is live"
        message = f"previous is {named}, but {live}"
        hint = "draft it anew from what is live; then sign and push again"
        issues.append(Issue(code="previous", path="/previous", message=message, hint=hint))
    return issues


def _dates(document: Constitution, now: datetime) -> list[Issue]:
    issues = []
    if document.expires_at <= now:
        message = f"expired at {document.expires_at.isoformat()}"
        issues.append(Issue(code="expired", path="/expires_at", message=message))
    elif document.expires_at <= now + ABOUT_TO_EXPIRE:
        message = f"expires at {document.expires_at.isoformat()}, within 24 hours"
        issues.append(Issue(code="about-to-expire", path="/expires_at", message=message))
    if document.issued_at > now + CLOCK_SKEW:
        message = f"is issued in the future: {document.issued_at.isoformat()}"
        issues.append(Issue(code="issued-in-future", path="/issued_at", message=message))
    return issues
