"""Reads the real world into the model's shape, each system by its own driver, and says where the two differ."""

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import asyncpg

from tests.faults.auditor import Auditor
from tests.helpers import whole_lines
from tests.model.reference import AUDITED, COMPLETED, REJECTED, ROLLED_BACK, Made, Model
from tests.world.environment import RunningEnvironment

_HISTORY = """
SELECT generation, kind, checksum, version, rollback_of,
    ARRAY(SELECT standing FROM standings s WHERE (s.environment, s.generation) = (r.environment, r.generation)
          ORDER BY s.id) AS standings
FROM releases r ORDER BY generation
"""


class Sight:
    """Looks at one environment from outside.

    Args:
        env: which.
    """

    def __init__(self, env: RunningEnvironment) -> None:
        self._env = env
        self._auditor = Auditor(env.settings | env.direct, env.client)
        self._told: Counter[str] = Counter()
        self._audited: Counter[str] = Counter()

    async def history(self) -> list[Made]:
        """Every release that Postgres holds."""
        connection = await asyncpg.connect(self._env.settings["DATABASE_READER_URL"], timeout=10)
        try:
            rows = await connection.fetch(_HISTORY)
        finally:
            await connection.close()
        return [
            Made(
                row["generation"],
                row["kind"],
                row["checksum"],
                tuple(int(part) for part in row["version"].split(".")) if row["version"] else None,
                row["rollback_of"],
                list(row["standings"]),
            )
            for row in rows
        ]

    async def begin(self) -> None:
        """From now on count what is told and audited."""
        self._told = await asyncio.to_thread(self._count_told)
        self._audited = _operations(await asyncio.to_thread(self._env.reads.audit))

    async def differences(self, model: Model, waiting: set[str]) -> list[str]:
        """Say where the world is not as the model says; nothing when it is.

        Args:
            world: the model.
            waiting: ids of the runs that wait for people, and may be open.
        """
        opened = [run for run in await self._env.open_runs() if not _is_of(run, waiting)]
        if opened:
            return [f"open: {opened}"]
        found = []
        try:
            said = await self._env.reads.live(self._env.config)
        except (KeyError, ValueError) as error:
            return [f"Redis holds something else than a release: {error!r}"]
        found += [f"{name} says {live}, the model {model.live}" for name, live in said.items() if live != model.live]
        rows, expected = [made.row for made in await self.history()], [made.row for made in model.releases]
        if rows != expected:
            tail = next((i for i, pair in enumerate(zip(rows, expected, strict=False)) if pair[0] != pair[1]), None)
            at = min(len(rows), len(expected)) if tail is None else tail
            found.append(f"Postgres holds the releases {rows[at:]}, the model {expected[at:]}")
        if found:
            return found  # what follows takes a second to read
        told, events, rows_kept, audit = await asyncio.gather(
            asyncio.to_thread(self._count_told),
            asyncio.to_thread(self._env.reads.audit),
            asyncio.to_thread(self.change_log),
            self._auditor.audit(),
        )
        found += _counted("told", told - self._told, model.told)
        found += _counted("audited", _operations(events) - self._audited, model.audited)
        found += self._not_forwarded(events)
        for generation in sorted(rows_kept.keys() | model.change_log.keys()):
            kept, wanted = (sorted(log.get(generation, [])) for log in (rows_kept, model.change_log))
            if kept != wanted:
                found.append(f"the change log says {kept} of generation {generation}, the model {wanted}")
        found += [
            f"invariant {finding.invariant}: {finding.what}"
            for finding in audit.findings
            if not _is_of(finding.what, waiting)
        ]
        return found

    def change_log(self) -> dict[int, list[str]]:
        """Outcomes of each generation in the archive's change log, one a row."""
        found: dict[int, list[str]] = {}
        for row in self._env.reads.change_log_rows():
            if row[1].isdigit():
                found.setdefault(int(row[1]), []).append(row[3])
        return found

    def _count_told(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        for key, texts in self._env.reads.told().items():
            outcome = key.rpartition("/")[2]
            if outcome in (COMPLETED, REJECTED, ROLLED_BACK):
                counts[outcome] += len(texts)
        return counts

    def _not_forwarded(self, events: list[dict[str, Any]]) -> list[str]:
        """Audit events that the SIEM's file lacks."""
        got = [json.loads(line) for line in whole_lines(Path(self._env.settings["SIEM_FILE"]))]
        told = {event["metadata"]["uid"] for event in got}
        return [f"the SIEM has not got {_named(event)}" for event in events if _uid(event) not in told]


def _operations(events: list[dict[str, Any]]) -> Counter[str]:
    """How often each operation was audited: the stream may hold an event twice, with the same id.

    More than one run may finish an undo, and each says so: what counts is what was undone.
    """
    once = {}
    for event in events:
        operation = str(event["api"]["operation"])
        undone = str(event["message"]).partition(" undone: ")[0]
        once[undone if operation == "rollback.completed" else _uid(event)] = operation
    return Counter(operation for operation in once.values() if operation in AUDITED)


def _uid(event: dict[str, Any]) -> str:
    return str(event["metadata"]["uid"])


def _named(event: dict[str, Any]) -> str:
    return f"{event['api']['operation']} ({event['metadata']['uid']})"


def _is_of(text: str, runs: set[str]) -> bool:
    """Whether a run's id, or a finding about it, belongs to one of these runs or to its guard."""
    return any(text == run or text.startswith((f"{run} ", f"{run}/")) for run in runs)


def _counted(what: str, found: Counter[str], expected: Counter[str]) -> list[str]:
    names = sorted(name for name in found | expected if found[name] != expected[name])
    return [f"{what}: {name} {found[name]} times, by the model {expected[name]}" for name in names]
