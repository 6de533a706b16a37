"""Change requests: an author asks the board for a document, signed with the author's own key. Stored once per id."""

import asyncio

from adapters.postgres import Connection
from constitution.api import ChangeRequest, ChangeRequestRecord
from constitution.errors import NotFoundError
from constitution.release import Envelope
from services.constitution_service.audit import audit_events
from services.constitution_service.context import Context
from services.constitution_service.errors import ChangeRequestTakenError
from services.constitution_service.tables.clock import now_of
from signatures.statements import verify_change_request


async def create(context: Context, envelope: Envelope, client: str) -> tuple[ChangeRequestRecord, bool]:
    """Store a change request; True if it is new. The same request again gives the record that is stored.

    Raises:
        UntrustedError: the envelope is not signed by its author with a key of the trust policy.
        ChangeRequestTakenError: another request has this id.
    """
    async with context.database.transaction() as connection:
        moment = await now_of(connection)
        request = await asyncio.to_thread(verify_change_request, envelope, context.trust, moment)
        added = await connection.fetchval(
            """
            INSERT INTO change_requests (environment, id, author, checksum, reason, envelope)
            VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (environment, id) DO NOTHING RETURNING created_at
            """,
            context.environment,
            request.id,
            request.author,
            request.checksum,
            request.reason,
            envelope.model_dump_json(),
        )
        if added is not None:
            await audit_events.decision(
                connection,
                context,
                activity="change_request.created",
                actor=request.author,
                message=f"{request.author} asks for {request.checksum} as {request.id}: {request.reason}",
                details={"change_request": request.id, "checksum": request.checksum, "client": client},
            )
            return ChangeRequestRecord(request=request, envelope=envelope, created_at=added), True
        stored = await get(connection, context.environment, request.id)
        if stored.request != request:
            raise ChangeRequestTakenError(
                f"{request.id} is another change request already, by {stored.request.author}",
                hint="choose a new id",
                current=stored.request.model_dump(mode="json"),
            )
        return stored, False


async def get(connection: Connection, environment: str, identity: str) -> ChangeRequestRecord:
    """Return a stored change request.

    Raises:
        NotFoundError: there is none with this id.
    """
    row = await connection.fetchrow(
        """
        SELECT id, author, checksum, reason, envelope::text AS envelope, created_at FROM change_requests
        WHERE environment = $1 AND id = $2
        """,
        environment,
        identity,
    )
    if row is None:
        raise NotFoundError(f"there is no change request {identity}")
    return ChangeRequestRecord(
        request=ChangeRequest(id=row["id"], author=row["author"], checksum=row["checksum"], reason=row["reason"]),
        envelope=Envelope.model_validate_json(row["envelope"]),
        created_at=row["created_at"],
    )
