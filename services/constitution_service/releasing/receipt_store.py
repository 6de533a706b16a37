"""Receipts in the artifact store, by their numbers: the highest is the head of their chain.

``receipts/[<namespace>/]<environment>/<sequence>.json``. A writer to the store without a key can destroy one, and forge
none; who deletes the newest release from the archive contradicts the head that lies here.
"""

import re
from dataclasses import dataclass

import structlog

from constitution.checksum import checksum_of
from constitution.errors import UntrustedError
from constitution.receipt import ReceiptPredicate
from constitution.release import Envelope
from constitution.untrusted import read_message
from services.constitution_service.context import Context
from services.constitution_service.tables import receipts
from signatures.receipts import receipt_bytes, verify_receipt

MAX_LISTED = 10_000  # receipts sealed between a backup and its restore
MAX_TRIED = 100  # objects that are no receipts, put there by an untrusted writer

_NAME = re.compile(r"/(\d{16})\.json$")
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ChainEnd:
    """The newest receipt: its number and digest; 0 and None before the first."""

    sequence: int = 0
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class LostReceipt:
    """A receipt of the store, verified, that PostgreSQL does not know."""

    envelope: Envelope
    receipt: ReceiptPredicate

    @property
    def end(self) -> ChainEnd:
        """What the next receipt follows, if this is the newest."""
        return ChainEnd(self.receipt.sequence, checksum_of(receipt_bytes(self.envelope)))


def receipt_path(context: Context, sequence: int) -> str:
    """Return where a receipt lies."""
    namespace = context.names.namespace
    folder = f"{namespace}/{context.environment}" if namespace else context.environment
    return f"receipts/{folder}/{sequence:016d}.json"


async def lost(context: Context) -> tuple[LostReceipt, ...]:
    """Return the receipts that PostgreSQL does not know, newest first: it was restored from an older backup.

    Raises:
        UnavailableError: PostgreSQL or the store did not answer.
    """
    async with context.database.connection() as connection:
        known = await receipts.sequences(connection, context.environment)
    gap = next(number for number in range(1, len(known) + 2) if number not in known)
    before = receipt_path(context, gap - 1)
    listed = await context.store.after(before.rpartition("/")[0], before, MAX_LISTED)
    names = [(path, int(name[1])) for path in reversed(listed) if (name := _NAME.search(path))]
    found = []
    for path in [path for path, number in names if number not in known][:MAX_TRIED]:
        data = await context.store.read(path)
        if data is None:
            continue
        try:
            envelope = read_message(Envelope, data)
            receipt = verify_receipt(envelope, context.trust)
        except (UntrustedError, ValueError) as error:
            _log.error("receipt_untrusted", path=path, reason=str(error))
            continue
        if path == receipt_path(context, receipt.sequence):
            found.append(LostReceipt(envelope, receipt))
    return tuple(found)


async def write(context: Context, row: receipts.ReceiptRow) -> None:
    """Write a receipt under its number; another one that lies there, signed, is evidence of a fork and stays.

    Raises:
        UnavailableError: the store did not answer.
    """
    path, data = receipt_path(context, row.sequence), row.envelope.encode()
    there = await context.store.read(path)
    if there == data:
        return
    if there is not None:
        try:
            verify_receipt(read_message(Envelope, there), context.trust)
        except (UntrustedError, ValueError):
            _log.error("receipt_untrusted", path=path, reason="it is overwritten")
        else:
            _log.error("receipt_conflict", path=path, stored=checksum_of(there), found=row.digest)
            return
    await context.store.replace(path, data)
