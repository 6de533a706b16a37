"""Which release was undone as harmful for what a document says: of these very bytes, or of the same rules."""

import asyncio

from adapters.postgres import Connection
from constitution.policy.document import Constitution, parse
from constitution.policy.poison import Poisoned
from constitution.policy.same_rules import rules_digest
from services.constitution_service.artifacts import artifacts
from services.constitution_service.context import Context
from services.constitution_service.tables import release_queries, releases

MAX_KNOWN = 10_000  # digests; some hundred bytes each
_known: dict[str, str] = {}
"""Digest of the rules of stored documents, by checksum: bytes under a checksum never change."""


async def find(
    connection: Connection, context: Context, checksum: str, document: Constitution | None
) -> Poisoned | None:
    """Return the release that speaks against a document, or None.

    What has the same rules as everything that is live, and is not poisoned itself, changes no decision: it may follow.

    Args:
        connection: to the database; of the transaction, for a load.
        context: of the service.
        checksum: of the document.
        document: parsed; None where it cannot be, or its rules are not asked about.
    """
    poisoned = await release_queries.all_poisoned(connection, context.environment)
    if checksum in poisoned or document is None or not poisoned:
        return poisoned.get(checksum)
    rules = await asyncio.to_thread(rules_digest, document)
    pointers = await releases.read_pointers(connection, context.environment)
    live = {None if pointer.document is None else pointer.document.checksum for pointer in pointers.values()}
    harmless = bool(live) and None not in live and live.isdisjoint(poisoned)
    if harmless and {await _digest(connection, context, found) for found in live if found is not None} == {rules}:
        return None
    for found, release in poisoned.items():
        if await _digest(connection, context, found) == rules:
            return release.of_same_rules()
    return None


async def _digest(connection: Connection, context: Context, checksum: str) -> str:
    if checksum not in _known:
        stored = await artifacts.get(connection, context.environment, checksum)
        found = await asyncio.to_thread(lambda: rules_digest(parse(stored.document)))
        if len(_known) >= MAX_KNOWN:
            _known.clear()
        _known[checksum] = found
    return _known[checksum]
