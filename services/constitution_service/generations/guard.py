"""Refuses to give out a generation twice (invariant 3), also after PostgreSQL was restored from an older backup.

Three sources know of releases beside PostgreSQL: the Redis values, the events on Kafka, the signed records in the
artifact store (sources.py). A release counts only with a statement that a pinned service key signed, so an untrusted
writer blocks nothing. PostgreSQL itself is the fourth: the highest generation that this process has read there can
never become lower.

Kafka and the store are asked when the process starts, after every outage of PostgreSQL, and once a minute; the Redis
values and PostgreSQL once a second; the store also before each load, for the very generation to be given out.
Until Kafka or the store has shown once that it has lost nothing itself, nothing is given out: the store shows the
record of the newest release, Kafka an event of the delivered high-water mark. Where nothing was ever released, or a
person has declared the lost generations, there is nothing to show; then both must have answered.
"""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NoReturn

import structlog

from adapters.postgres import Database
from constitution.errors import ContentError, TransportError, UnavailableError
from services.constitution_service.errors import BehindError, PostgresBehindError, UnprovedError
from services.constitution_service.generations.sources import BEGINNING, ReleaseSources, SignedRelease
from services.constitution_service.tables import releases

LOOK = timedelta(seconds=1)
SCAN = timedelta(minutes=1)
SOON = timedelta(seconds=5)  # instead, while no source has shown that it lost nothing
AT_START = timedelta(seconds=3)  # how long a start waits for the first look; a dead Kafka must not keep it longer
OVERLAP = timedelta(minutes=10)  # how much of what was read before is read again: clocks differ
STORE_WAIT = timedelta(seconds=3)  # a load waits no longer for the store
COMMITTED_HERE = "this process saw it in PostgreSQL"
COMMAND = "python -m services.constitution_service.recovery releases"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ObservedRelease:
    """A release that was live, and where that is seen. No ``version`` and ``checksum``: a withdraw, or unknown."""

    generation: int
    version: str | None
    checksum: str | None
    where: str

    @property
    def message(self) -> str:
        """What it proves, in one sentence without PostgreSQL's side."""
        return f"generation {self.generation} was live ({self.where})"


class GenerationGuard:
    """See the module.

    Args:
        environment: its name.
        database: PostgreSQL.
        sources: of signed releases, beside PostgreSQL.
    """

    def __init__(self, *, environment: str, database: Database, sources: ReleaseSources) -> None:
        self._environment = environment
        self._database = database
        self._sources = sources
        self._observed: ObservedRelease | None = None  # the highest ever
        self._behind: ObservedRelease | None = None
        self._proved = False  # Kafka or the store has shown that it is whole, since PostgreSQL was last away
        self._answered: set[str] = set()  # which of them have answered since then, whole or not
        self._scan_due = 0.0  # time.monotonic()
        self._scan_from = BEGINNING
        self._scanning = asyncio.Lock()

    @property
    def behind(self) -> ObservedRelease | None:
        """The release that PostgreSQL has lost, as of the last look; None while it has lost none."""
        return self._behind

    @property
    def observed(self) -> ObservedRelease | None:
        """The highest release that any source has shown; take it before PostgreSQL is read (``compare``)."""
        return self._observed

    def refuse_to_serve(self) -> None:
        """Raise while PostgreSQL is known to be behind.

        Raises:
            BehindError: this service does not know the current release.
        """
        if self._behind is not None:
            raise BehindError(
                f"{self._behind.message}, and PostgreSQL does not know it: it was restored from an older backup",
                hint=COMMAND,
            )

    async def start(self) -> None:
        """Look once, before the service answers; a silent system does not keep it from starting."""
        try:
            async with asyncio.timeout(AT_START.total_seconds()):
                await self.look()
        except (UnavailableError, TimeoutError) as error:
            _log.warning(
                "generation_guard_waits", reason=str(error) or f"no answer in {AT_START.total_seconds():.0f} s"
            )

    async def run(self) -> None:
        """Look once a second until cancelled."""
        while True:
            try:
                await self.look()
            except UnavailableError as error:
                _log.warning("generation_guard_waits", reason=error.message)
            except Exception:  # noqa: BLE001 - one round's defect must not end the watch over generations; it is logged
                _log.exception("generation_guard_failed")
            await asyncio.sleep(LOOK.total_seconds())

    async def look(self) -> None:
        """Read the sources that are due, and compare with PostgreSQL.

        Raises:
            UnavailableError: PostgreSQL did not answer, or Kafka did not when it was due.
        """
        await self._read_redis()
        highest = await self._compare()
        if time.monotonic() < self._scan_due:
            return
        await self._read_next_record(highest)
        await self._read_newest_record(highest)
        await self._compare()  # the evidence so far waits for no Kafka
        await self._read_topic()
        await self._compare()

    def committed(self, generation: int) -> None:
        """Remember what this process has itself given out, before it looks again."""
        if self._observed is None or self._observed.generation < generation:
            self._observed = ObservedRelease(generation, None, None, COMMITTED_HERE)

    async def require(self, *, next_generation: bool) -> None:
        """Prove that PostgreSQL has lost nothing, as far as any source knows.

        Args:
            next_generation: whether a generation is about to be given out; then the store is asked for it.

        Raises:
            PostgresBehindError: a signed release exists that PostgreSQL does not know.
            UnprovedError: neither Kafka nor the store has shown that it is whole since PostgreSQL was last away.
            UnavailableError: PostgreSQL did not answer.
        """
        highest = await self._highest()
        await self._read_redis()
        if next_generation:
            await self._read_next_record(highest)
        highest = await self._compare()
        if self._behind is not None:
            self._refuse(self._behind, highest)
        if next_generation and not self._proved:
            raise UnprovedError(
                f"nothing proves yet that generation {highest + 1} is unused: "
                "Kafka and artifact store are silent, or have lost what they held",
                hint="bring Kafka or the artifact store back, or fill it again (docs/backup-and-restore.md); "
                "then the same call works",
            )

    def _refuse(self, lost: ObservedRelease, highest: int) -> NoReturn:
        raise PostgresBehindError(
            f"{lost.message}; PostgreSQL knows only {highest}: it was restored from an older backup",
            hint=COMMAND,
            current={"generation": lost.generation, "version": lost.version, "checksum": lost.checksum},
        )

    async def _compare(self) -> int:
        """Compare PostgreSQL's highest generation, which is returned, with what was observed before it was read."""
        observed = self._observed
        highest = await self._highest()
        self.compare(observed, highest)
        return highest

    def compare(self, observed: ObservedRelease | None, highest: int) -> None:
        """Conclude from PostgreSQL's highest generation whether it has lost releases.

        Args:
            observed: as it was before PostgreSQL was read: a release may be committed and observed meanwhile.
            highest: what PostgreSQL said.
        """
        self.committed(highest)
        behind = max(
            (one for one in (observed, self._behind) if one is not None and one.generation > highest),
            key=lambda one: one.generation,
            default=None,
        )
        if behind is not None and self._behind is None:
            _log.error(
                "postgres_behind", observed=behind.generation, postgres=highest, where=behind.where, next=COMMAND
            )
        if behind is None and self._behind is not None:
            _log.info("postgres_caught_up", postgres=highest)
        self._behind = behind

    async def _highest(self) -> int:
        try:
            async with self._database.connection() as connection:
                return await releases.highest_generation(connection, self._environment)
        except UnavailableError:
            self._proved = False  # it may come back as another one
            self._answered.clear()
            self._scan_due = 0.0
            raise

    async def _read_redis(self) -> None:
        with suppress(UnavailableError):  # a hint at best; no release depends on Redis
            async for found in self._sources.in_redis():
                self._observe(found)

    async def _read_topic(self) -> None:
        async with self._scanning:
            known = self._observed.generation if self._observed else 0
            proof = 0 if self._proved else (await self._high_water_marks()).delivered
            begun = datetime.now(UTC)
            try:
                if proof:  # from the beginning, and with the event that shows that the topic is whole
                    events = await self._sources.on_topic(min(known, proof - 1), BEGINNING)
                else:
                    events = await self._sources.on_topic(known, self._scan_from)
            except (TransportError, ContentError) as error:
                self._scan_due = time.monotonic() + SOON.total_seconds()
                raise UnavailableError(f"the events on Kafka cannot be read: {error.message}") from error
            newest = await asyncio.to_thread(next, self._sources.signed(events), None)
            if newest is not None:
                self._observe(newest)
            self._mark("Kafka", whole=bool(proof) and newest is not None and newest.release.generation >= proof)
            if not self._proved:
                await self._excuse()
            self._scan_due = time.monotonic() + (SCAN if self._proved else SOON).total_seconds()
            self._scan_from = begun - OVERLAP

    async def _read_next_record(self, highest: int) -> None:
        """Ask for the record of the generation to be given out, and of the newest release, which proves the store."""
        try:
            async with asyncio.timeout(STORE_WAIT.total_seconds()):
                newer = await self._sources.record(highest + 1)
                if newer is None and not self._proved:
                    released = (await self._high_water_marks()).released
                    self._mark("store", whole=released > 0 and await self._sources.record(released) is not None)
                while newer is not None:
                    self._observe(newer)
                    newer = await self._sources.record(newer.release.generation + 1)
        except (UnavailableError, TimeoutError) as error:
            _log.warning("store_not_asked", generation=highest + 1, reason=str(error) or "no answer in time")

    async def _read_newest_record(self, highest: int) -> None:
        """Look through the store for records beyond a gap: a generation of which it holds nothing."""
        try:
            async with asyncio.timeout(STORE_WAIT.total_seconds()):
                for generation in reversed(await self._sources.recorded(highest)):
                    found = await self._sources.record(generation)
                    if found is not None:
                        self._observe(found)
                        return
        except (UnavailableError, TimeoutError) as error:
            _log.warning("store_not_listed", generation=highest + 1, reason=str(error) or "no answer in time")

    def _observe(self, found: SignedRelease) -> None:
        release = found.release
        if self._observed is None or release.generation > self._observed.generation:
            where = f"signed in {found.where}"
            self._observed = ObservedRelease(release.generation, release.version, release.checksum, where)

    def _mark(self, source: str, *, whole: bool) -> None:
        self._answered.add(source)
        self._proved = self._proved or whole

    async def _excuse(self) -> None:
        """Demand no proof where nothing was ever released, or where a person has declared the lost generations."""
        if self._answered == {"Kafka", "store"}:
            marks = await self._high_water_marks()
            self._proved = marks.released == 0 or marks.declared > marks.released

    async def _high_water_marks(self) -> releases.HighWaterMarks:
        async with self._database.connection() as connection:
            return await releases.high_water_marks(connection, self._environment)
