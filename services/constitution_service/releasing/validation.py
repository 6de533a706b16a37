"""Says whether a document could go live now. Changes nothing, and lists every problem at once."""

import asyncio
from collections.abc import Sequence

from constitution.api import ValidateResult
from constitution.checksum import checksum_of
from constitution.errors import InvalidDocumentError, Issue, UntrustedError
from constitution.names import DEFAULT_RING
from constitution.policy import validity
from constitution.policy.document import Constitution, parse
from constitution.release import Kind
from services.constitution_service.artifacts import artifacts, poisoned
from services.constitution_service.artifacts.harmful import find
from services.constitution_service.context import Context
from services.constitution_service.tables import releases
from services.constitution_service.tables.clock import now_of
from services.constitution_service.tables.release_queries import highest_version


async def validate(context: Context, data: bytes, signatures: Sequence[bytes]) -> ValidateResult:
    """Judge exact bytes and their signatures as an update of the ring ``default``."""
    checksum = checksum_of(data)
    issues: list[Issue] = []
    document: Constitution | None = None
    try:
        document = await asyncio.to_thread(parse, data)
    except InvalidDocumentError as error:
        issues += error.issues
    async with context.database.connection() as connection:
        moment = await now_of(connection)
        pointer = await releases.read_pointer(connection, context.environment, DEFAULT_RING)
        harmful = await find(connection, context, checksum, document)
        judged = await poisoned.judge(connection, context, harmful, checksum, moment=moment)
        highest = await highest_version(connection, context.environment, checksum, reissued=bool(judged.reissued_by))
    issues += judged.issues
    report = await artifacts.verify(context, data, signatures, moment)
    first = pointer is None or pointer.document is None
    if document is not None:
        first = document.previous is None
        issues += validity.check(
            document,
            kind=Kind.UPDATE,
            environment=context.environment,
            current=None if pointer is None else pointer.document,
            highest_version=highest,
            now=moment,
        )
    try:
        report.require(context.trust.thresholds.for_document(Kind.UPDATE, first=first))
    except UntrustedError as error:
        issues += (Issue(code=error.code, path="/signatures", message=error.message), *error.issues)
    return ValidateResult(
        valid=not issues,
        checksum=checksum,
        version=None if document is None else document.version,
        signers=tuple(report.signers),
        issues=tuple(issues),
        harmful=None if harmful is None else harmful.issue(),
        reissued_by=judged.reissued_by,
    )
