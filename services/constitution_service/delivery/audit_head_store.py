"""Signed heads of the audit stream in the artifact store, out of reach of whoever can write to PostgreSQL or Kafka.

``audit/[<namespace>/]<environment>/newest.json`` is written before each batch is sent; heads that are kept lie
beside it under their numbers. Both are signed: a writer to the store without a key can destroy one, and forge none.
"""

import asyncio
import re

import structlog

from constitution.audit_head import AuditHead
from constitution.errors import UntrustedError
from constitution.names import Names
from constitution.release import Envelope
from constitution.untrusted import read_message
from services.constitution_service.context import Context
from services.constitution_service.tables import audit_chain
from signatures.audit_chain import verify_head
from signatures.dsse import statement_bytes

HEADS_A_ROUND = 50  # bounds what one round holds in memory
MAX_LISTED = 10_000  # heads: a million events between a backup and its restore
MAX_TRIED = 100  # objects that are no heads, put there by an untrusted writer

_NAME = re.compile(r"/heads/\d{16}\.json$")
_log = structlog.get_logger(__name__)


def newest_path(names: Names, environment: str) -> str:
    """Return where the newest head lies."""
    return f"{_folder(names, environment)}/newest.json"


def head_path(names: Names, environment: str, sequence: int) -> str:
    """Return where a head that is kept lies."""
    return f"{_folder(names, environment)}/heads/{sequence:016d}.json"


def _folder(names: Names, environment: str) -> str:
    return f"audit/{names.namespace}/{environment}" if names.namespace else f"audit/{environment}"


class AuditHeadStore:
    """The heads of one relay.

    Args:
        context: of the service.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._lock = asyncio.Lock()  # the sender and the writer of records both write heads
        self.forget()

    def forget(self) -> None:
        """Look at the store again: another process may have relayed since, or PostgreSQL been restored."""
        self.newest: tuple[AuditHead, Envelope] | None = None  # that the store showed
        self._looked = False
        self._stored = 0

    async def look(self) -> None:
        """Read the newest head of the store, once; the chain must not go on below it (invariant 3).

        Raises:
            UnavailableError: PostgreSQL or the store did not answer.
        """
        async with self._lock:
            if self._looked:
                return
            async with self._context.database.connection() as connection:
                end = await audit_chain.end_of(connection, self._context.environment)
            found = await self._read(newest_path(self._context.names, self._context.environment))
            if found is None or found[0].sequence < end.sequence:
                found = await self._beyond(end.sequence) or found
            self.newest = found
            if found is not None and found[0].sequence <= end.sequence:
                self._stored = found[0].sequence
            self._looked = True

    async def write(self) -> None:
        """Write the heads that the store lacks; the newest last, so that it tells how far the store is.

        Raises:
            UnavailableError: PostgreSQL or the store did not answer.
        """
        context = self._context
        async with self._lock:
            if not self._looked:  # it is not known yet what the store has
                return
            while True:
                async with context.database.connection() as connection:
                    newest = await audit_chain.newest_head(connection, context.environment)
                    kept = await audit_chain.kept_heads(connection, context.environment, self._stored, HEADS_A_ROUND)
                if newest is None or newest.sequence <= self._stored:
                    return
                for head in kept:
                    await self._keep(head)
                    self._stored = max(self._stored, head.sequence - 1)  # the newest may be kept, too
                if len(kept) < HEADS_A_ROUND:
                    break
            path = newest_path(context.names, context.environment)
            there = await self._read(path)
            if there is not None and there[0].sequence > newest.sequence:
                self.newest = there  # PostgreSQL has lost events: the next batch goes on behind this head
                return
            await context.store.replace(path, _bytes(newest.envelope))
            self._stored = newest.sequence

    async def _keep(self, head: audit_chain.HeadRow) -> None:
        path = head_path(self._context.names, self._context.environment, head.sequence)
        there = await self._read(path)
        if there is None:
            await self._context.store.replace(path, _bytes(head.envelope))
        elif there[0].hash != head.hash:  # it proves that two databases gave this number: not to be overwritten
            _log.error("audit_head_conflict", path=path, stored=there[0].hash, found=head.hash)

    async def _beyond(self, sequence: int) -> tuple[AuditHead, Envelope] | None:
        """Return the newest kept head above a number."""
        after = head_path(self._context.names, self._context.environment, sequence)
        listed = await self._context.store.after(after.rpartition("/")[0], after, MAX_LISTED)
        for path in [path for path in reversed(listed) if _NAME.search(path)][:MAX_TRIED]:
            found = await self._read(path)
            if found is not None and found[0].sequence > sequence:
                return found
        return None

    async def _read(self, path: str) -> tuple[AuditHead, Envelope] | None:
        """Return a head that a pinned key signed; None if nothing else lies there."""
        data = await self._context.store.read(path)
        if data is None:
            return None
        try:
            envelope = read_message(Envelope, data)
            return verify_head(envelope, self._context.trust), envelope
        except (UntrustedError, ValueError) as error:
            _log.error("audit_head_untrusted", path=path, reason=str(error))
            return None


def _bytes(envelope: Envelope) -> bytes:
    return statement_bytes(envelope.model_dump(mode="json"))
