"""The board's overrides of *poisoned*: which count, asked again inside the transaction of a load.

An override is an approval of kind *reissue* (constitution/trust/approval.py). It names the environment, the bytes and
the change request, expires, and was signed after the document had been called poisoned: nobody signs it in advance. A
change request is good for one release, and so is its override. It replaces no approval of the update itself.
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from adapters.postgres import Connection
from constitution.errors import Issue, NotApprovedError, UntrustedError
from constitution.policy.poison import Poisoned
from constitution.release import Envelope, Kind
from constitution.trust import approval_rules
from constitution.trust.approval import ApprovalPredicate
from constitution.trust.approval_rules import Binding
from services.constitution_service.context import Context
from services.constitution_service.tables import reissues
from services.constitution_service.tables.reissues import ReissueRow
from signatures.statements import verify_approval


@dataclass(frozen=True, slots=True)
class Overrides:
    """Whose overrides count, with the envelopes that they signed; if they are too few, why."""

    people: tuple[str, ...] = ()
    envelopes: tuple[Envelope, ...] = ()
    issues: tuple[Issue, ...] = ()


async def counting(
    connection: Connection,
    context: Context,
    harmful: Poisoned,
    checksum: str,
    *,
    change_request: str | None,
    moment: datetime,
) -> Overrides:
    """Return the overrides that let a document go live; and if they do not suffice, why.

    Args:
        connection: of the transaction.
        context: of the service.
        harmful: what was called poisoned, and when.
        checksum: of the document that comes again.
        change_request: whose overrides count; None: those of any that asks for the document.
        moment: the database's time.
    """
    rows = await reissues.usable(connection, context.environment, checksum, change_request)
    issues: list[Issue] = []
    for _, group in groupby(sorted(rows, key=lambda row: row.change_request), key=lambda row: row.change_request):
        found = await asyncio.to_thread(
            people_of, context, list(group), harmful, checksum, moment, context.trust.thresholds.for_reissue()
        )
        if not found.issues:
            return found
        issues += found.issues
    return Overrides(issues=tuple(issues))


def people_of(  # noqa: PLR0917 - for a thread
    context: Context, rows: list[ReissueRow], harmful: Poisoned, checksum: str, moment: datetime, threshold: int
) -> Overrides:
    """Return the overrides of one change request that count; and if they are of fewer than ``threshold``, why."""
    said: list[tuple[str, ApprovalPredicate]] = []
    signed: list[tuple[str, Envelope]] = []
    issues: list[Issue] = []
    for row in rows:
        try:
            person, predicate = _verified(context, row, moment)
            _require_after(person, predicate, harmful, moment)
        except NotApprovedError as error:
            issues.append(Issue(code="reissue", path="/reissue", message=error.message))
        else:
            said.append((person, predicate))
            signed.append((person, row.envelope))
    try:
        people = _counted(context, said, rows[0], checksum, moment, threshold=threshold)
        return Overrides(people, tuple(envelope for person, envelope in signed if person in people))
    except NotApprovedError as error:
        message = f"{rows[0].change_request}: {error.message}"
        named = [issue.model_copy(update={"code": "reissue", "path": "/reissue"}) for issue in error.issues]
        return Overrides(issues=(Issue(code="reissue", path="/reissue", message=message), *named, *issues))


def check(
    context: Context, row: ReissueRow, harmful: Poisoned, checksum: str, moment: datetime
) -> tuple[str, ApprovalPredicate]:
    """Return who signed one override, and what it says.

    Raises:
        NotApprovedError: it does not count, and why.
    """
    person, predicate = _verified(context, row, moment)
    _require_after(person, predicate, harmful, moment)
    _counted(context, [(person, predicate)], row, checksum, moment, threshold=1)
    return person, predicate


def _verified(context: Context, row: ReissueRow, moment: datetime) -> tuple[str, ApprovalPredicate]:
    try:
        return verify_approval(row.envelope, context.trust, moment)
    except UntrustedError as error:
        raise NotApprovedError(f"this override does not count: {error.message}", issues=error.issues) from error


def _require_after(person: str, predicate: ApprovalPredicate, harmful: Poisoned, moment: datetime) -> None:
    untimely = approval_rules.time_refusal(predicate.issued_at, predicate.expires_at, moment)
    if untimely is not None:
        raise NotApprovedError(f"{person}: {untimely}")
    if predicate.issued_at <= harmful.at:
        raise NotApprovedError(
            f"{person} signed this override at {predicate.issued_at.isoformat(timespec='seconds')}, before generation "
            f"{harmful.generation} was called poisoned at {harmful.at.isoformat(timespec='seconds')}"
        )


def _counted(
    context: Context,
    said: list[tuple[str, ApprovalPredicate]],
    row: ReissueRow,
    checksum: str,
    moment: datetime,
    *,
    threshold: int,
) -> tuple[str, ...]:
    binding = Binding(
        kind=Kind.REISSUE,
        environment=context.environment,
        checksum=checksum,
        change_request=row.change_request,
    )
    return approval_rules.count(
        said, binding=binding, trust=context.trust, threshold=threshold, author=row.author, now=moment
    )
