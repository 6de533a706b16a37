"""The database's clock: the one clock by which everything of this service happens."""

from datetime import datetime

from adapters.postgres import Connection


async def now_of(connection: Connection) -> datetime:
    """Return the database's clock: one clock for all processes, read after any lock was taken."""
    moment: datetime = await connection.fetchval("SELECT clock_timestamp()")
    return moment
