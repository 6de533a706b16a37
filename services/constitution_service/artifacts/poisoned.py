"""Documents that were undone because of what they say: refused at push, validate and load (invariant 5).

Each refusal says which release it was and why it was undone, and is audited: a document that comes again is news to
whoever watches the audit stream. Only the board's signed override lets one through (reissues.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from adapters.postgres import Connection
from constitution.errors import InvalidDocumentError, Issue
from constitution.policy.poison import Poisoned, issues_among
from constitution.release import Envelope
from services.constitution_service.artifacts import reissues
from services.constitution_service.context import Context
from services.constitution_service.tables import release_queries


@dataclass(frozen=True, slots=True)
class Judged:
    """What the past says about a document.

    Args:
        harmful: the release that speaks against it.
        issues: why it may not come again; empty if it may.
        reissued_by: whose overrides it needs and has.
        reissues: those overrides, as signed.
    """

    harmful: Poisoned | None = None
    issues: tuple[Issue, ...] = ()
    reissued_by: tuple[str, ...] = ()
    reissues: tuple[Envelope, ...] = ()


async def judge(
    connection: Connection,
    context: Context,
    harmful: Poisoned | None,
    checksum: str,
    *,
    moment: datetime,
    change_request: str | None = None,
) -> Judged:
    """Say whether the board lets a document come again.

    Args:
        connection: to the database; of the transaction, for a load.
        context: of the service.
        harmful: the release that speaks against the document (harmful.py).
        checksum: of the document.
        moment: the database's time.
        change_request: whose overrides count; None: those of any that asks for the document.
    """
    if harmful is None:
        return Judged()
    found = await reissues.counting(
        connection, context, harmful, checksum, change_request=change_request, moment=moment
    )
    if not found.people:
        return Judged(harmful, (harmful.issue(), *found.issues))
    return Judged(harmful, (), found.people, found.envelopes)


async def require_pushable(
    connection: Connection, context: Context, checksum: str, version: str, moment: datetime
) -> None:
    """Demand that a document may be stored, again or with further signatures.

    Only these very bytes are asked about: what has the same rules must be stored before the board can reissue it.

    Raises:
        InvalidDocumentError: it is poisoned.
    """
    harmful = (await release_queries.all_poisoned(connection, context.environment)).get(checksum)
    judged = await judge(connection, context, harmful, checksum, moment=moment)
    if judged.issues:
        raise InvalidDocumentError(
            f"{version} is not stored: this document is poisoned",
            issues=judged.issues,
            hint="constitution releases  # what became of it; draft one that says something else",
        )


def refusal(version: str | None, issues: Sequence[Issue]) -> InvalidDocumentError | None:
    """Return what the audit stream is told of a document that ``validate`` called poisoned; None: it did not."""
    found = issues_among(issues)
    if not found:
        return None
    return InvalidDocumentError(f"{version} is not valid: this document is poisoned", issues=found)
