"""The board's signed overrides: a poisoned document may be released again, by one change request. Appended to only."""

from dataclasses import dataclass

from adapters.postgres import Connection
from constitution.release import Envelope


@dataclass(frozen=True, slots=True)
class ReissueRow:
    """A stored override, and the author of the change request that it is for."""

    change_request: str
    author: str
    envelope: Envelope


async def append(
    connection: Connection,
    environment: str,
    change_request: str,
    envelope: Envelope,
    *,
    digest: str,
    said: tuple[str, str],
) -> bool:
    """Append an override; False if it stands there already.

    Args:
        connection: of the transaction.
        environment: where.
        change_request: that it is for.
        envelope: as signed.
        digest: of who signed and what was signed.
        said: who signed, and why.
    """
    person, reason = said
    added: bool | None = await connection.fetchval(
        """
        INSERT INTO reissues (environment, digest, change_request, person, reason, envelope)
        VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (environment, digest) DO NOTHING RETURNING true
        """,
        environment,
        digest,
        change_request,
        person,
        reason,
        envelope.model_dump_json(),
    )
    return added is not None


async def of_request(connection: Connection, environment: str, change_request: str) -> list[Envelope]:
    """Return every override of a change request, oldest first."""
    rows = await connection.fetch(
        """
        SELECT envelope::text AS envelope FROM reissues
        WHERE environment = $1 AND change_request = $2 ORDER BY position
        """,
        environment,
        change_request,
    )
    return [Envelope.model_validate_json(row["envelope"]) for row in rows]


async def usable(
    connection: Connection, environment: str, checksum: str, change_request: str | None
) -> list[ReissueRow]:
    """Return the overrides of change requests that ask for a document, and were neither published nor denied.

    So each override is good for one release: a change request is.

    Args:
        connection: to the database.
        environment: where.
        checksum: of the document.
        change_request: this one alone; None: any.
    """
    rows = await connection.fetch(
        """
        SELECT r.change_request, r.envelope::text AS envelope, c.author
        FROM reissues r JOIN change_requests c ON c.environment = r.environment AND c.id = r.change_request
        WHERE r.environment = $1 AND c.checksum = $2 AND ($3::text IS NULL OR c.id = $3)
        AND NOT EXISTS (SELECT FROM closed_change_requests d WHERE d.environment = $1 AND d.id = c.id)
        AND NOT EXISTS (
            SELECT FROM releases l WHERE l.environment = $1 AND l.change_request = c.id AND l.kind = 'update')
        ORDER BY r.position
        """,
        environment,
        checksum,
        change_request,
    )
    return [
        ReissueRow(row["change_request"], row["author"], Envelope.model_validate_json(row["envelope"])) for row in rows
    ]
