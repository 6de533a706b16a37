"""What the systems say, read by the auditor's own drivers, and what must not have changed without a signature."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import asyncpg
import redis.asyncio

from tests.attack.corpus import MARK
from tests.world.environment import RunningEnvironment

STRICT: Final = {
    "releases": "SELECT generation AS key, row_to_json(releases)::text AS row FROM releases",
    "standings": "SELECT id AS key, row_to_json(standings)::text AS row FROM standings",
    "current": "SELECT ring AS key, row_to_json(current_releases)::text AS row FROM current_releases",
    "orders": "SELECT digest AS key, row_to_json(orders)::text AS row FROM orders",
    "denied requests": "SELECT id AS key, row_to_json(closed_change_requests)::text AS row FROM closed_change_requests",
}
"""Where no row comes, goes or changes without a signature."""

ENDED: Final = ("denied", "aborted", "expired", "undone", "confirmed")


@dataclass(frozen=True)
class Facts:
    """Everything at one moment, at rest."""

    rows: dict[str, dict[str, str]]
    updates: dict[str, str]
    redis: str
    events: list[str]
    archived: frozenset[str]
    told: dict[str, frozenset[str]]
    audited: list[dict[str, Any]]


async def facts_of(env: RunningEnvironment) -> Facts:
    """Read every system."""
    connection = await asyncpg.connect(env.settings["DATABASE_READER_URL"], timeout=15)
    try:
        rows = {
            name: {str(row["key"]): _digest(row["row"]) for row in await connection.fetch(query)}
            for name, query in STRICT.items()
        }
        states = await connection.fetch(
            "SELECT DISTINCT ON (update_id) update_id::text, state FROM update_states ORDER BY update_id, position DESC"
        )
    finally:
        await connection.close()
    async with redis.asyncio.from_url(env.direct["REDIS_URL"], socket_timeout=15) as client:
        cached = await client.get(env.names.redis_current())
    return Facts(
        rows=rows,
        updates={row["update_id"]: row["state"] for row in states},
        redis=str(cached),
        events=[_digest(json.dumps(record.value, sort_keys=True)) for record in env.reads.updated()],
        archived=frozenset(env.reads.archived()),
        told={key: frozenset(messages) for key, messages in env.reads.told().items()},
        audited=env.reads.audit(),
    )


def unsigned_changes(before: Facts, after: Facts, people: frozenset[str]) -> list[str]:
    """Return what has changed between two moments in which nobody has signed anything; empty if all is well.

    Args:
        before: read before the acts.
        after: read at rest again.
        people: ids of all whose signature counts.
    """
    found: list[str] = []
    for name, rows in before.rows.items():
        now = after.rows[name]
        found += [f"{name}: {key} is new" for key in now.keys() - rows.keys()]
        found += [f"{name}: {key} is gone" for key in rows.keys() - now.keys()]
        found += [f"{name}: {key} was changed" for key in rows.keys() & now.keys() if rows[key] != now[key]]
    for update, state in before.updates.items():
        became = after.updates.get(update)
        stopped = state not in ENDED and became in ("aborted", "expired", "lease")  # who may stop may delay
        if became != state and not stopped:
            found.append(f"update {update} was {state} and is {became}")
    found += [
        f"update {update} is {state}, which nobody has signed"
        for update, state in after.updates.items()
        if update not in before.updates and state in ("decided", "loaded", "confirmed", "undone", "denied")
    ]
    if before.redis != after.redis:
        found.append(f"Redis holds {after.redis[:200]}")
    if gained := list((Counter(after.events) - Counter(before.events)).elements()):
        found.append(f"{len(gained)} new records on constitution.updated")
    return [*found, *_told(before, after), *_audited(before, after, people), *_archived(before, after)]


def _told(before: Facts, after: Facts) -> list[str]:
    """What people read: an outcome that did not happen, or a link of a stranger's."""
    found = []
    for key, messages in after.told.items():
        new = messages - before.told.get(key, frozenset())
        if any(f"<{MARK}" in text or f'"url": "{MARK}' in text for text in new):
            found.append(f"the channel holds a stranger's link, under {key}")
        if new and not key.endswith(("/rejected", "/progress")):  # who may stop may also refuse
            found.append(f"the channel tells of {key}")
        if len(messages) != 1 and not key.endswith("/progress"):
            found.append(f"{key} was told {len(messages)} times")
    return found


def _audited(before: Facts, after: Facts, people: frozenset[str]) -> list[str]:
    """Audit events that name a person who has signed nothing since."""
    known = {event["metadata"]["uid"] for event in before.audited}
    found = []
    for event in after.audited:
        actor = event["actor"].get("user", {}).get("uid", "")
        if event["metadata"]["uid"] not in known and actor in people:
            found.append(f"the audit stream says that {actor} did {event['api']['operation']}")
    return found


def _archived(before: Facts, after: Facts) -> list[str]:
    """Files of releases and denials that did not happen."""
    gone = [f"the archive has lost {path}" for path in before.archived - after.archived]
    new = after.archived - before.archived
    denied = {path.partition("/approvals/")[0] for path in new if "/approvals/" in path}
    return gone + [
        f"the archive has gained {path}"
        for path in new
        if path.endswith(("manifest.json", "document.json")) or "/outcome-" in path
        # who may stop may also refuse, but in nobody's name
        if "/rejected-" not in path or path.rpartition("/")[0] in denied
    ]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
