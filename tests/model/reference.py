"""The reference model: what a correct runbook leaves behind, in plain Python.

It knows nothing of services, workflows or faults, and imports nothing of the product: releases, the documents that
people asked for, and what must be told, audited and archived of each. A fault changes none of it: that is the promise.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

COMPLETED, REJECTED, ROLLED_BACK = "completed", "rejected", "rolled_back"
AUDITED = (
    "update.completed",
    "update.rejected",
    "rollback.completed",
    "rollback.rejected",
    "release.loaded",
    "standing.recorded",
    "guard.completed",
    "guard.rejected",
    "decide.refused",
    "load.refused",
    "cache.forged",
)
"""Operations on the audit stream that the model counts."""


@dataclass(frozen=True, slots=True)
class Document:
    """A signed draft that somebody asked for.

    Args:
        checksum: of its bytes.
        version: as numbers.
        follows: checksum of the document that was live when it was written; None: nothing was.
    """

    checksum: str
    version: tuple[int, ...]
    follows: str | None


@dataclass(slots=True)
class Made:
    """One release."""

    generation: int
    kind: str
    checksum: str | None
    version: tuple[int, ...] | None
    undoes: int | None
    standings: list[str] = field(default_factory=list)

    @property
    def row(self) -> tuple[object, ...]:
        """As it is compared."""
        return self.generation, self.kind, self.checksum, self.undoes, tuple(self.standings)


class Model:
    """What is live, how it came to be, and what must have been said about it.

    Args:
        releases: the history so far; the counts of what was told and audited begin at nought.
        change_log: outcomes of each generation so far.
    """

    def __init__(self, releases: Sequence[Made], change_log: Mapping[int, Sequence[str]]) -> None:
        self.releases = list(releases)
        self.told: Counter[str] = Counter()
        self.audited: Counter[str] = Counter()
        self.change_log = {generation: list(outcomes) for generation, outcomes in change_log.items()}

    # --- what is so

    @property
    def live(self) -> tuple[int, str | None]:
        """Generation and checksum that Postgres, Redis and every target must say; (0, None): nothing yet."""
        newest = self.releases[-1] if self.releases else None
        return (newest.generation, newest.checksum) if newest else (0, None)

    def may_go_live(self, document: Document) -> bool:
        """An update follows what is live, and is newer than every version that ever was."""
        ever = [release.version for release in self.releases if release.version is not None]
        return document.follows == self.live[1] and all(document.version > version for version in ever)

    def restored_by_default(self, bad: Made) -> Made | None:
        """What a rollback by hand restores: the newest document that stands as confirmed and is another one."""
        standing = {r.checksum for r in self.releases if r.standings and r.standings[-1] == "confirmed"}
        for release in reversed(self._before(bad)):
            if release.checksum is not None and release.checksum != bad.checksum and release.checksum in standing:
                return release
        return None

    def restorable(self, bad: Made) -> list[Made]:
        """What a rollback by hand may be told to restore: whatever was confirmed once; the newest first."""
        found: dict[str, Made] = {}
        for release in reversed(self._before(bad)):
            if release.checksum not in (None, bad.checksum) and "confirmed" in release.standings:
                found.setdefault(str(release.checksum), release)
        return list(found.values())

    def authorised_in_advance(self, bad: Made, restored: Made | None) -> bool:
        """The approvals of an update cover the way back to exactly what was live before it."""
        if bad.kind != "update":
            return False
        before = self._before(bad)
        return (restored.checksum if restored else None) == (before[-1].checksum if before else None)

    def _before(self, release: Made) -> list[Made]:
        return [earlier for earlier in self.releases if earlier.generation < release.generation]

    # --- what happens

    def completed(self, document: Document, *, by_guard: bool = False) -> None:
        """An update went live and was confirmed."""
        release = self._released("update", document.checksum, document.version, None)
        self._stands(release, "confirmed")
        self.change_log[release.generation] = ["completed"]
        self._said(COMPLETED, "guard.completed" if by_guard else "update.completed")

    def rejected(self, *, by_guard: bool = False) -> None:
        """An update touched nothing."""
        self._said(REJECTED, "guard.rejected" if by_guard else "update.rejected")

    def undone(self, document: Document) -> None:
        """An update went live and, before it was confirmed, gave way to what was live before it."""
        before = self.releases[-1] if self.releases else None
        bad = self._released("update", document.checksum, document.version, None)
        self._restored(bad, before if before and before.checksum else None)

    def rolled_back(self, restored: Made | None) -> None:
        """The newest release was undone by hand."""
        self._restored(self.releases[-1], restored)

    def rollback_rejected(self) -> None:
        """A rollback by hand touched nothing."""
        self._said(REJECTED, "rollback.rejected")

    def _restored(self, bad: Made, restored: Made | None) -> None:
        checksum, version = (restored.checksum, restored.version) if restored else (None, None)
        undoing = self._released("rollback" if restored else "withdraw", checksum, version, bad.generation)
        self._stands(bad, "withdrawn")
        self._stands(undoing, "confirmed")
        self.change_log.setdefault(bad.generation, []).append("rolled back")
        self.change_log[undoing.generation] = ["restored" if restored else "withdrawn"]
        self._said(ROLLED_BACK, "rollback.completed")

    def _released(self, kind: str, checksum: str | None, version: tuple[int, ...] | None, undoes: int | None) -> Made:
        release = Made(len(self.releases) + 1, kind, checksum, version, undoes)
        self.releases.append(release)
        self.audited["release.loaded"] += 1
        return release

    def _stands(self, release: Made, standing: str) -> None:
        release.standings.append(standing)
        self.audited["standing.recorded"] += 1

    def _said(self, outcome: str, operation: str) -> None:
        self.told[outcome] += 1
        self.audited[operation] += 1
