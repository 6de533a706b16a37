"""Accepts a board member's signed override of *poisoned* for one change request (artifacts/reissues.py); audited."""

import asyncio

from constitution.api import ReissueRecord
from constitution.checksum import checksum_of
from constitution.policy.document import parse
from constitution.release import Envelope
from services.constitution_service.artifacts import artifacts, change_requests
from services.constitution_service.artifacts.harmful import find
from services.constitution_service.artifacts.reissues import check, people_of
from services.constitution_service.audit import audit_events
from services.constitution_service.context import Context
from services.constitution_service.errors import NotPossibleError
from services.constitution_service.tables import reissues, updates
from services.constitution_service.tables.clock import now_of
from services.constitution_service.tables.reissues import ReissueRow
from signatures.dsse import decode_base64

MAX_OF_REQUEST = 64  # envelopes of one change request; each is verified in the transaction of a load
_NOBODY = "00000000-0000-0000-0000-000000000000"  # the update of nobody: whoever published it, it is used up


async def accept(context: Context, identity: str, envelope: Envelope, client: str) -> ReissueRecord:
    """Store one board member's override for a change request; the same again changes nothing.

    Raises:
        NotFoundError: there is no such change request, or its document was not pushed.
        NotPossibleError: what it asks for is not poisoned, or too many have signed.
        UpdateClosedError: the change request was denied or is used up.
        NotApprovedError: it is not signed by a member of the board other than the author, about this, and in time.
    """
    environment = context.environment
    async with context.database.transaction() as connection:
        stored = await change_requests.get(connection, environment, identity)
        moment = await now_of(connection)
        await updates.require_request_open(connection, environment, identity, _NOBODY)
        checksum = stored.request.checksum
        artifact = await artifacts.get(connection, environment, checksum)
        document = await asyncio.to_thread(parse, artifact.document)
        harmful = await find(connection, context, checksum, document)
        if harmful is None:
            raise NotPossibleError(
                f"{identity} asks for {checksum}, of which nothing was ever undone as harmful: it takes no override",
                hint=f"constitution update --checksum {checksum} --change-request {identity}",
            )
        row = ReissueRow(identity, stored.request.author, envelope)
        person, predicate = await asyncio.to_thread(check, context, row, harmful, checksum, moment)
        before = await reissues.usable(connection, environment, checksum, identity)
        if len(before) >= MAX_OF_REQUEST:
            raise NotPossibleError(f"{identity} has {len(before)} overrides; at most {MAX_OF_REQUEST} are kept")
        # Of the payload, not of the envelope: a signature can be written in more than one way.
        digest = checksum_of(person.encode() + b"\n" + decode_base64(envelope.payload, "the override"))
        said = (person, predicate.reason)
        if await reissues.append(connection, environment, identity, envelope, digest=digest, said=said):
            before = [*before, row]
            await audit_events.decision(
                connection,
                context,
                activity="reissue.signed",
                actor=person,
                message=f"{person} signed that {identity} may release {checksum} again: {predicate.reason}",
                details={"change_request": identity, "checksum": checksum, "client": client},
            )
    known = await asyncio.to_thread(people_of, context, before, harmful, checksum, moment, 1)
    needed = context.trust.thresholds.for_reissue()
    return ReissueRecord(change_request=identity, checksum=checksum, signed_by=known.people, needed=needed)
