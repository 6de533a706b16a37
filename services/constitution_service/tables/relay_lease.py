"""Which process relays: a row with an end, so that another takes over from one that was stopped or cut off.

The row only chooses; it does not protect. Kafka (transactional id) and the floor in Redis refuse a process that wakes
late (invariant 6).
"""

from datetime import timedelta

from adapters.postgres import Connection

TTL = timedelta(seconds=3)  # the longest wait after a relay died without a word
RENEWAL = timedelta(milliseconds=700)  # several chances within a TTL on a busy machine


async def renew(connection: Connection, environment: str, process: str) -> int | None:
    """Take or keep the right to relay; return its epoch, or None while another process has it."""
    epoch: int | None = await connection.fetchval(
        """
        INSERT INTO relay_leases AS l (environment, holder, epoch, expires_at)
        VALUES ($1, $2, 1, clock_timestamp() + $3::interval)
        ON CONFLICT (environment) DO UPDATE SET
            epoch = l.epoch + CASE WHEN l.holder = $2 AND l.expires_at > clock_timestamp() THEN 0 ELSE 1 END,
            holder = $2,
            expires_at = EXCLUDED.expires_at
        WHERE l.holder = $2 OR l.expires_at <= clock_timestamp()
        RETURNING epoch
        """,
        environment,
        process,
        TTL,
    )
    return epoch


async def give_back(connection: Connection, environment: str, process: str) -> None:
    """Let another process take over at once; for a clean end."""
    await connection.execute(
        "UPDATE relay_leases SET expires_at = clock_timestamp() WHERE environment = $1 AND holder = $2",
        environment,
        process,
    )
