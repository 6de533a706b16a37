"""Numbers and links audit events, in the order in which they are sent, and signs how far the stream reaches.

Only the process that relays does so, one statement a batch, which proves its right; and the database refuses a number
that does not follow. An event keeps its number: after a crash it is sent again as the same bytes.

The head of a batch is in PostgreSQL before the batch is sent, and in the artifact store, unless that takes longer than
a second; then it is written as soon as the store answers. At the start of each term the store is asked first, however
long that takes: PostgreSQL may have been restored from an older backup, and must not give out numbers anew.
"""

import asyncio
import json
from collections.abc import Awaitable
from datetime import timedelta

import structlog

from adapters.postgres import Connection
from constitution.audit_head import AuditHead
from constitution.checksum import checksum_of
from constitution.errors import UnavailableError
from constitution.release import Envelope
from services.constitution_service.audit import audit_events
from services.constitution_service.context import Context
from services.constitution_service.delivery.audit_head_store import AuditHeadStore
from services.constitution_service.tables import audit_chain
from services.constitution_service.tables.clock import now_of
from services.constitution_service.tables.outbox import Pending
from signatures.audit_chain import seal

AUDIT_BATCH = 200  # events of one transaction, in PostgreSQL and in Kafka
KEEP_EVERY = 100  # events: the store gets one object more for so many, and an auditor as many places to begin at
STORE_HEAD_START = timedelta(seconds=1)  # a batch waits at most this long for the artifact store
KEPT = frozenset({"release.loaded", "standing.recorded"})  # with each release, a head is kept

_log = structlog.get_logger(__name__)


class AuditNumbers:
    """The numbering of one relay.

    Args:
        context: of the service.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self.heads = AuditHeadStore(context)

    async def batch(self, epoch: int) -> list[Pending]:
        """Return the oldest events that are not on Kafka yet, numbered, with a signed head over them.

        Args:
            epoch: of this process's right to relay.

        Raises:
            UnavailableError: PostgreSQL, or at the start the artifact store, did not answer; or another process relays.
        """
        environment = self._context.environment
        await self._in_time(self.heads.look())
        if self.heads.newest is not None:
            await self._compare(*self.heads.newest)
        async with self._context.database.connection() as connection:
            rows = await audit_chain.numbered(connection, environment, AUDIT_BATCH)
            fresh = [] if rows else await audit_chain.waiting(connection, environment, AUDIT_BATCH)
            if fresh:
                rows = await self._number(connection, epoch, fresh)
        if rows:
            try:
                await self._in_time(self.heads.write())
            except UnavailableError as error:
                _log.warning("events_before_head", reason=error.message)
        return rows

    async def _in_time(self, work: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(STORE_HEAD_START.total_seconds()):
                await work
        except TimeoutError as error:
            raise UnavailableError("the artifact store gave no answer in time about the audit stream's head") from error

    async def _number(self, connection: Connection, epoch: int, fresh: list[Pending]) -> list[Pending]:
        context = self._context
        end = await audit_chain.end_of(connection, context.environment)
        time = await now_of(connection)
        links, kept = await asyncio.to_thread(_links, fresh, end)
        head = AuditHead(environment=context.environment, sequence=links[-1].sequence, hash=links[-1].hash, time=time)
        envelope = context.key.sign_audit_head(head)
        return await audit_chain.append(
            connection, links, head, envelope, kept=kept, holder=context.process, epoch=epoch
        )

    async def _compare(self, head: AuditHead, envelope: Envelope) -> None:
        """Compare with the newest head of the store; where PostgreSQL lost events, go on behind it, and audit that."""
        environment = self._context.environment
        async with self._context.database.transaction() as connection:
            end = await audit_chain.end_of(connection, environment)
            if head.sequence > end.sequence and await audit_chain.add_head(connection, head, envelope):
                activity = "audit.continued"
                message = (
                    f"PostgreSQL knew the audit stream up to {end.sequence}, the artifact store up to {head.sequence}: "
                    f"it was restored from an older backup, and the stream goes on after {head.sequence}"
                )
            elif await audit_chain.hash_at(connection, environment, head.sequence) not in {None, head.hash}:
                activity = "audit.forked"
                message = (
                    f"the artifact store holds another signed head of audit event {head.sequence} than PostgreSQL: two "
                    "databases have numbered events of one environment"
                )
            else:
                activity = message = ""
            if activity:
                _log.error(activity.replace(".", "_"), known=end.sequence, stored=head.sequence)
                await audit_events.decision(
                    connection,
                    self._context,
                    activity=activity,
                    success=False,
                    actor="constitution-service",
                    message=message,
                    details={"known": end.sequence, "stored": head.sequence, "stored_hash": head.hash},
                )
        self.heads.newest = None  # compared; committed


def _links(rows: list[Pending], end: audit_chain.ChainEnd) -> tuple[list[audit_chain.Link], bool]:
    """Return events with their places after the newest one, and whether the store is to keep their head."""
    links = []
    sequence, previous, kept = end.sequence, end.hash, end.sequence == 0
    for row in rows:
        sequence += 1
        value = seal(row.value, sequence, previous)
        links.append(audit_chain.Link(row, sequence, previous, checksum_of(value), value.decode()))
        previous = links[-1].hash
        kept = kept or sequence % KEEP_EVERY == 0 or json.loads(row.value)["api"]["operation"] in KEPT
    return links, kept
