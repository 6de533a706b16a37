"""Queries of earlier releases for the rules: which were ever live, confirmed, poisoned."""

from datetime import datetime

from adapters.postgres import Connection
from constitution.version import Version


async def highest_version(connection: Connection, environment: str, checksum: str | None) -> str | None:
    """Return the highest version that was ever live, or None; a withdrawn document does not count against itself.

    Args:
        connection: to the database.
        environment: where.
        checksum: of the document that asks. Undone for reasons outside of it, it may be tried again as it is.
    """
    again = await connection.fetchval(
        """
        SELECT standing = 'withdrawn' FROM standings s WHERE s.environment = $1 AND s.generation = (
            SELECT max(generation) FROM releases r WHERE r.environment = $1 AND r.checksum = $2)
        ORDER BY s.id DESC LIMIT 1
        """,
        environment,
        checksum,
    )
    rows = await connection.fetch(
        """
        SELECT DISTINCT version FROM releases
        WHERE environment = $1 AND version IS NOT NULL AND checksum IS DISTINCT FROM $2
        """,
        environment,
        checksum if again else None,
    )
    return max((row["version"] for row in rows), key=Version.parse, default=None)


async def first_confirmed(connection: Connection, environment: str, checksum: str) -> int | None:
    """Return the first generation of this document that was confirmed, or None."""
    found: int | None = await connection.fetchval(
        """
        SELECT min(generation) FROM releases JOIN standings USING (environment, generation)
        WHERE environment = $1 AND checksum = $2 AND standing = 'confirmed'
        """,
        environment,
        checksum,
    )
    return found


async def was_poisoned(connection: Connection, environment: str, checksum: str) -> bool:
    """Return whether some release of this document was undone because of the document."""
    found: bool = await connection.fetchval(
        """
        SELECT EXISTS (SELECT FROM releases JOIN standings USING (environment, generation)
        WHERE environment = $1 AND checksum = $2 AND standing = 'poisoned')
        """,
        environment,
        checksum,
    )
    return found


async def confirmed_at(connection: Connection, environment: str, generation: int) -> datetime | None:
    """Return when a release was confirmed, or None while it is not."""
    moment: datetime | None = await connection.fetchval(
        """
        SELECT recorded_at FROM standings
        WHERE environment = $1 AND generation = $2 AND standing = 'confirmed'
        """,
        environment,
        generation,
    )
    return moment


async def later_confirmed(connection: Connection, environment: str, generation: int) -> int | None:
    """Return a later release that was confirmed, or None."""
    found: int | None = await connection.fetchval(
        """
        SELECT min(generation) FROM standings
        WHERE environment = $1 AND generation > $2 AND standing = 'confirmed'
        """,
        environment,
        generation,
    )
    return found
