"""Reconciliation of the records: each outcome is in the legal archive, unaltered, and in the channel once."""

import json
from datetime import UTC, datetime, timedelta

from temporalio import activity

from activities.archive import ArchiveInput, read_outcome
from activities.failures import classified
from activities.folder import ROOT, change_log_key, folder_of
from activities.keys import require_environment
from activities.past_releases import past_releases
from activities.ports import ActivityConfig, ConstitutionService
from activities.reconcile.ports import Announcements, Repository, RunSearch
from activities.reconcile.target_checks import Found
from constitution.archived_outcome import UNDONE, outcome_of
from constitution.checksum import checksum_of
from constitution.model import Model
from constitution.past import Past, Stood
from constitution.reconciliation import Finding

CHANGE_LOG = "docs/SomaAgentHub_Security.md"
HISTORIES = "histories/"
NEWEST = 20  # folders whose every file is compared with its manifest at each look
MOST = 5  # releases that are archived anew by one run; the next run goes on
LOOK_BACK = timedelta(hours=24)  # how far back the channel is read


class ArchiveLook(Model):
    """Which environment, and after how many seconds an outcome that is not archived is missing."""

    environment: str
    closed_seconds: float


class ArchiveFound(Model):
    """``missing``: what ``archive_release`` must write anew, in the earlier words if they are known."""

    missing: tuple[ArchiveInput, ...]
    findings: tuple[Finding, ...]


class ChannelInput(Model):
    """Which environment; with ``repair`` a duplicate is deleted."""

    environment: str
    repair: bool


class ArchiveChecks:
    """Looks at archive and channel; deletes nothing but the later of two equal messages of ours."""

    def __init__(
        self,
        *,
        service: ConstitutionService,
        repository: Repository,
        announcements: Announcements,
        search: RunSearch,
        config: ActivityConfig,
    ) -> None:
        self._service = service
        self._repository = repository
        self._announcements = announcements
        self._search = search
        self._config = config

    @activity.defn
    @classified
    async def check_archive(self, x: ArchiveLook) -> ArchiveFound:
        """Compare the archive with the releases that have an outcome. Only reads.

        Missing files and rows can be written anew; only what happened: a release that is recorded as withdrawn or
        poisoned, and that no release undid, is a finding, and no row says that it was rolled back. A folder with a
        file that differs from its manifest stays untouched: a person must see the change.
        """
        require_environment(self._config, x.environment)
        before = datetime.now(UTC) - timedelta(seconds=x.closed_seconds)
        releases = (await past_releases(self._service))[::-1]
        there, log = await self._archive()
        missing: list[ArchiveInput] = []
        findings: list[Finding] = []
        undone = {release.rollback_of for release in releases}
        for number, release in enumerate(releases):
            folder = folder_of(release.version, release.generation)
            due = [
                (outcome_of(release.kind, record.standing), record)
                for record in release.standings
                if record.recorded_at <= before
            ]
            if release.generation not in undone:  # a standing alone undoes nothing: any holder of a lease can write one
                findings += [_never_happened(release, record) for outcome, record in due if outcome == UNDONE]
                due = [(outcome, record) for outcome, record in due if outcome != UNDONE]
            lacking = [(o, record) for o, record in due if not _archived(folder, o, release, there, log)]
            if not lacking and number >= NEWEST:
                continue
            listed = await self._listed(folder, release)
            wrong = await self._wrong(folder, listed, there)
            if wrong:
                findings.append(_altered(folder, wrong))
                continue
            absent = any(f"{folder}/{name}" not in there for name in listed)
            for outcome, record in lacking or (due[-1:] if absent else []):
                if len(missing) >= MOST or await self._under_way(record.update_id):
                    continue
                if not absent and _archived(folder, outcome, release, *await self._archive()):
                    continue  # its run has archived it, and closed, since we looked
                missing.append(await self._again(folder, outcome, release))
        return ArchiveFound(missing=tuple(missing), findings=tuple(findings))

    @activity.defn
    @classified
    async def check_channel(self, x: ChannelInput) -> Found:
        """Find outcomes that were announced twice; with ``repair`` delete all but the first message of each.

        Twice, or killed half-way: a deleted message is not found again. Late: the first message always stays.
        """
        require_environment(self._config, x.environment)
        messages: dict[str, list[tuple[str, str]]] = {}
        announced = await self._announcements.announced(self._config.environment.channel, datetime.now(UTC) - LOOK_BACK)
        for key, channel_id, ts in announced:
            messages.setdefault(key, []).append((ts, channel_id))
        findings = []
        for key, found in sorted(messages.items()):
            later = sorted(found)[1:]
            if not later:
                continue
            repaired = ""
            if x.repair:
                for ts, channel_id in later:
                    await self._announcements.delete(channel_id, ts)
                repaired = f"{len(later)} later messages were deleted"
            findings.append(
                Finding(
                    code="announced-twice",
                    where=key,
                    message=f"{self._config.environment.channel} has the outcome {len(found)} times",
                    command="constitution doctor --repair",
                    repaired=repaired,
                )
            )
        return Found(findings=tuple(findings))

    async def _archive(self) -> tuple[frozenset[str], str]:
        """Return the paths of the archive, and its change log."""
        there = await self._repository.paths(ROOT)
        log = (await self._repository.read(CHANGE_LOG) or b"").replace(
            b"\0", b""
        )  # a row's key is ASCII, also in UTF-16
        return there, log.decode("ascii", "replace")

    async def _listed(self, folder: str, release: Past) -> dict[str, str]:
        """Return the checksums of a folder's files, as its manifest and the release say."""
        raw = await self._repository.read(f"{folder}/manifest.json")
        if raw is None:
            return {}
        document = {} if release.checksum is None else {"document.json": release.checksum}
        try:
            return dict(json.loads(raw)["files"]) | document
        except (ValueError, TypeError, KeyError, RecursionError):
            return {"manifest.json": ""}  # no file has this checksum

    async def _wrong(self, folder: str, listed: dict[str, str], there: frozenset[str]) -> list[str]:
        """Return the files that differ from what is listed, and the histories that are gone: nobody can write those."""
        wrong = [name for name in listed if name.startswith(HISTORIES) and f"{folder}/{name}" not in there]
        for name in (name for name in listed if f"{folder}/{name}" in there):
            data = await self._repository.read(f"{folder}/{name}")
            if data is not None and checksum_of(data) != listed[name]:
                wrong.append(name)
        return sorted(wrong)

    async def _under_way(self, update_id: str) -> bool:
        """Say whether the run that must archive this outcome itself is still there to do it."""
        return any(run["close_time"] is None for run in await self._search.carrying(update_id))

    async def _again(self, folder: str, outcome: str, release: Past) -> ArchiveInput:
        path = f"{folder}/outcome-{outcome}.json"
        archived = read_outcome(path, await self._repository.read(path))
        return ArchiveInput(
            environment=release.environment,
            generation=release.generation,
            outcome=outcome,
            watch_evidence=archived.watch_evidence if archived else None,
        )


def _never_happened(release: Past, record: Stood) -> Finding:
    return Finding(
        code="standing-without-undo",
        where=f"generation {release.generation}",
        message=f"it is recorded as {record.standing.value} ({record.reason}), and no release has undone it",
        command=f"constitution show {release.generation}",
    )


def _archived(folder: str, outcome: str, release: Past, there: frozenset[str], log: str) -> bool:
    key = change_log_key(release.environment, release.generation, outcome)
    names = ["manifest.json", f"outcome-{outcome}.json", "release-statement.json", "README.md"]
    names += ["document.json"] if release.checksum is not None else []
    return f"<!-- {key} -->" in log and all(f"{folder}/{name}" in there for name in names)


def _altered(folder: str, names: list[str]) -> Finding:
    return Finding(
        code="archive-altered",
        where=folder,
        message=f"{', '.join(names[:5])} {'is' if len(names) == 1 else 'are'} missing, or not what the manifest says",
        command=f"git log -p -- {folder}; git checkout COMMIT -- {folder} brings the true files back",
    )
