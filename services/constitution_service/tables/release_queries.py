"""Queries of earlier releases for the rules: which were ever live, confirmed, poisoned."""

from datetime import datetime

from adapters.postgres import Connection
from constitution.policy.poison import Poisoned
from constitution.version import Version


async def highest_version(
    connection: Connection, environment: str, checksum: str | None, *, reissued: bool = False
) -> str | None:
    """Return the highest version that was ever live, or None; a withdrawn document does not count against itself.

    Args:
        connection: to the database.
        environment: where.
        checksum: of the document that asks. Undone for reasons outside of it, it may be tried again as it is.
        reissued: the board lets it come again though it was poisoned; it does not count against itself either.
    """
    again = await connection.fetchval(
        """
        SELECT standing = ANY($3::text[]) FROM standings s WHERE s.environment = $1 AND s.generation = (
            SELECT max(generation) FROM releases r WHERE r.environment = $1 AND r.checksum = $2)
        ORDER BY s.id DESC LIMIT 1
        """,
        environment,
        checksum,
        ["withdrawn", "poisoned"] if reissued else ["withdrawn"],
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


async def all_poisoned(connection: Connection, environment: str) -> dict[str, Poisoned]:
    """Return what was undone because of its document: by checksum, the newest release of each."""
    rows = await connection.fetch(
        """
        SELECT DISTINCT ON (r.checksum) r.checksum, r.generation, r.version, s.reason, s.recorded_at
        FROM releases r JOIN standings s ON s.environment = r.environment AND s.generation = r.generation
        WHERE r.environment = $1 AND r.checksum IS NOT NULL AND s.standing = 'poisoned'
        ORDER BY r.checksum, r.generation DESC
        """,
        environment,
    )
    return {
        row["checksum"]: Poisoned(
            generation=row["generation"],
            version=row["version"],
            checksum=row["checksum"],
            reason=row["reason"],
            at=row["recorded_at"],
        )
        for row in rows
    }


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
