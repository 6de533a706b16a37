"""Refuses to give out a generation that was given out before: the answer to a database restored from an older backup.

Three witnesses know of releases beside PostgreSQL: the Redis values, the events on Kafka, the signed records in the
artifact store. Only what a pinned service key has signed counts, so a stranger who can write to any of them blocks
nothing. PostgreSQL itself is the fourth: what this process has once read there cannot become less.

Kafka and the store are asked when the process starts, after every outage of PostgreSQL, and once a minute; the Redis
values and PostgreSQL once a second; the store also before each load, for the very generation to be given out.
Until one of them has shown once that it has lost nothing itself, nothing is given out: a store by the record of the
newest release, Kafka by an event of the newest one that it has acknowledged. Where nothing was ever released, or a
person has declared what was lost, there is nothing to show; then both must have answered.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

import structlog

from adapters.artifact_store import ArtifactStore
from adapters.environment_config import EnvironmentConfig
from adapters.event_log import KafkaEventLog
from adapters.postgres import Database
from adapters.redis_cache import ConstitutionCache
from constitution.errors import ContentError, TransportError, UnavailableError, UntrustedError
from constitution.events import UpdatedEvent
from constitution.names import Names
from constitution.release import CurrentConstitution, ReleasePredicate
from constitution.untrusted import read_message
from services.constitution_service.errors import BehindError, PostgresBehindError, UnprovedError
from services.constitution_service.generations.records import listed, read_release_record, record_path
from services.constitution_service.tables import releases
from signatures.statements import verify_release

LOOK = timedelta(seconds=1)
SCAN = timedelta(minutes=1)
SOON = timedelta(seconds=5)  # instead, while nobody has shown that nothing was lost
AT_START = timedelta(seconds=3)  # how long a start waits for the first look; a dead Kafka must not keep it longer
OVERLAP = timedelta(minutes=10)  # how much of what was read before is read again: clocks differ
KAFKA_WAIT = timedelta(seconds=3)  # for each answer of a broker
STORE_WAIT = timedelta(seconds=3)  # a load waits no longer for the store
BEGINNING = datetime(1971, 1, 1, tzinfo=UTC)
COMMITTED_HERE = "this process saw it in PostgreSQL"
RECORDED = "its signed record is in the artifact store"
COMMAND = "python -m services.constitution_service.recovery releases"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Seen:
    """A release that was live, and who says so. ``version`` and ``checksum`` are null for a withdraw, or unknown."""

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
        config: environment, rings and the keys that count.
        names: of keys and topics.
        database: PostgreSQL.
        cache: Redis.
        store: the artifact store.
        kafka: connection part of librdkafka's configuration.
    """

    def __init__(
        self,
        *,
        config: EnvironmentConfig,
        names: Names,
        database: Database,
        cache: ConstitutionCache,
        store: ArtifactStore,
        kafka: dict[str, str],
    ) -> None:
        self._config = config
        self._names = names
        self._database = database
        self._cache = cache
        self._store = store
        self._events = KafkaEventLog(kafka, names, timeout=KAFKA_WAIT)
        self._brokers = kafka["bootstrap.servers"].split(",")
        self._seen: Seen | None = None  # the highest ever
        self._behind: Seen | None = None
        self._proved = False  # a durable witness has shown that it is whole, since PostgreSQL was last away
        self._answered: set[str] = set()  # who was heard since then, whole or not
        self._scan_due = 0.0  # time.monotonic()
        self._scan_from = BEGINNING
        self._scanning = asyncio.Lock()

    @property
    def behind(self) -> Seen | None:
        """The release that PostgreSQL has lost, as of the last look; None while it has lost none."""
        return self._behind

    def refuse_to_serve(self) -> None:
        """Raise while PostgreSQL is known to be behind.

        Raises:
            BehindError: what is current is not known here.
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
            _log.warning("witness_waits", reason=str(error) or f"no answer in {AT_START.total_seconds():.0f} s")

    async def run(self) -> None:
        """Look once a second until cancelled."""
        while True:
            try:
                await self.look()
            except UnavailableError as error:
                _log.warning("witness_waits", reason=error.message)
            except Exception:  # noqa: BLE001 - one round's defect must not end the watch over generations; it is logged
                _log.exception("witness_failed")
            await asyncio.sleep(LOOK.total_seconds())

    async def look(self) -> None:
        """Hear the witnesses that are due, and compare with PostgreSQL.

        Raises:
            UnavailableError: PostgreSQL did not answer, or Kafka did not when it was due.
        """
        highest = await self._highest()
        await self._hear_redis(highest)
        highest = await self._compare()
        if time.monotonic() < self._scan_due:
            return
        await self._hear_store(highest)
        await self._hear_records(highest)
        await self._compare()  # what is known by now waits for no Kafka
        await self._hear_kafka()
        await self._compare()

    def committed(self, generation: int) -> None:
        """Remember what this process has itself given out, before it looks again."""
        if self._seen is None or self._seen.generation < generation:
            self._seen = Seen(generation, None, None, COMMITTED_HERE)

    async def require(self, *, next_generation: bool) -> None:
        """Prove that PostgreSQL has lost nothing, as far as anybody knows.

        Args:
            next_generation: whether a generation is about to be given out; then the store is asked for it.

        Raises:
            PostgresBehindError: a signed release exists that PostgreSQL does not know.
            UnprovedError: neither Kafka nor the store has shown that it is whole since PostgreSQL was last away.
            UnavailableError: PostgreSQL did not answer.
        """
        highest = await self._highest()
        await self._hear_redis(highest)
        if next_generation:
            await self._hear_store(highest)
        highest = await self._compare()
        if self._behind is not None:
            self._refuse(self._behind, highest)
        if next_generation and not self._proved:
            raise UnprovedError(
                f"nobody can say yet that generation {highest + 1} is unused: "
                "Kafka and artifact store are silent, or have lost what they held",
                hint="bring Kafka or the artifact store back, or fill it again (docs/backup-and-restore.md); "
                "then the same call works",
            )

    async def require_kafka(self) -> None:
        """Prove that Kafka lets this service in.

        Raises:
            UnavailableError: no broker answers in time.
            ForbiddenError, UnsupportedServerError: it does not let us in, and will not.
        """
        await _reached(self._brokers)
        await self._events.require_usable()

    def _refuse(self, seen: Seen, highest: int) -> NoReturn:
        raise PostgresBehindError(
            f"{seen.message}; PostgreSQL knows only {highest}: it was restored from an older backup",
            hint=COMMAND,
            current={"generation": seen.generation, "version": seen.version, "checksum": seen.checksum},
        )

    async def _compare(self) -> int:
        """Compare PostgreSQL's highest generation, which is returned, with what was heard before it was read.

        Before, because a release may be committed and heard of while PostgreSQL's answer is under way.
        """
        seen = self._seen
        highest = await self._highest()
        self.committed(highest)
        behind = max(
            (one for one in (seen, self._behind) if one is not None and one.generation > highest),
            key=lambda one: one.generation,
            default=None,
        )
        if behind is not None and self._behind is None:
            _log.error("postgres_behind", seen=behind.generation, postgres=highest, where=behind.where, next=COMMAND)
        if behind is None and self._behind is not None:
            _log.info("postgres_caught_up", postgres=highest)
        self._behind = behind
        return highest

    async def _highest(self) -> int:
        try:
            async with self._database.connection() as connection:
                return await releases.highest_generation(connection, self._config.name)
        except UnavailableError:
            self._proved = False  # it may come back as another one
            self._answered.clear()
            self._scan_due = 0.0
            raise

    async def _hear_redis(self, highest: int) -> None:
        for ring in self._config.environment.rings():
            try:
                raw = await self._cache.read(ring)
            except UnavailableError:
                return  # a hint at best; no release depends on Redis
            if raw is not None:
                await self._believe_value(raw, ring, highest)

    async def _believe_value(self, raw: bytes, ring: str, highest: int) -> None:
        try:
            value = read_message(CurrentConstitution, raw)
        except ValueError:
            return
        if value.generation <= highest or (self._seen and value.generation <= self._seen.generation):
            return
        try:
            said = await asyncio.to_thread(verify_release, value.statement, self._config.trust)
        except UntrustedError:
            return  # forged: the relay overwrites it
        self._note(said, f"its signed statement is in Redis, ring {ring}")

    async def _hear_kafka(self) -> None:
        async with self._scanning:
            known = self._seen.generation if self._seen else 0
            proof = 0 if self._proved else (await self._told()).delivered
            begun = datetime.now(UTC)
            try:
                await _reached(self._brokers)
                if proof:  # from the beginning, and with the event that shows that the topic is whole
                    events = await self._events.find_newer(min(known, proof - 1), BEGINNING)
                else:
                    events = await self._events.find_newer(known, self._scan_from)
            except (TransportError, ContentError) as error:
                self._scan_due = time.monotonic() + SOON.total_seconds()
                raise UnavailableError(f"the events on Kafka cannot be read: {error.message}") from error
            newest = await asyncio.to_thread(self._newest_of, events)
            if newest is not None:
                self._note(newest[0], f"its signed statement is on Kafka, offset {newest[1]}")
            self._hear("Kafka", whole=bool(proof) and newest is not None and newest[0].generation >= proof)
            if not self._proved:
                await self._nothing_to_show()
            self._scan_due = time.monotonic() + (SCAN if self._proved else SOON).total_seconds()
            self._scan_from = begun - OVERLAP

    def _hear(self, who: str, *, whole: bool) -> None:
        self._answered.add(who)
        self._proved = self._proved or whole

    async def _nothing_to_show(self) -> None:
        """Let both have shown nothing where nothing was released, or where a person has said since what was lost."""
        if self._answered == {"Kafka", "store"}:
            told = await self._told()
            self._proved = told.released == 0 or told.declared > told.released

    async def _told(self) -> releases.Told:
        async with self._database.connection() as connection:
            return await releases.told(connection, self._config.name)

    def _newest_of(self, events: Sequence[dict[str, Any]]) -> tuple[ReleasePredicate, int] | None:
        """Return what the newest event says that a pinned service key has signed for here, and its offset."""
        for event in sorted(events, key=lambda event: -int(event["generation"])):
            try:
                said = verify_release(read_message(UpdatedEvent, event["raw"].encode()).statement, self._config.trust)
            except (ValueError, ContentError):
                continue  # anyone who may write to the topic can put that there
            if (said.environment, said.generation) == (self._config.name, event["generation"]):
                return said, event["offset"]
        return None

    async def _hear_store(self, highest: int) -> None:
        """Ask for the record of the generation to be given out, and of the newest release, which proves the store."""
        try:
            async with asyncio.timeout(STORE_WAIT.total_seconds()):
                newer = await self._record(highest + 1)
                if newer is None and not self._proved:
                    released = (await self._told()).released
                    self._hear("store", whole=released > 0 and await self._record(released) is not None)
                while newer is not None:
                    self._note(newer, RECORDED)
                    newer = await self._record(newer.generation + 1)
        except (UnavailableError, TimeoutError) as error:
            _log.warning("store_not_asked", generation=highest + 1, reason=str(error) or "no answer in time")

    async def _hear_records(self, highest: int) -> None:
        """Look through the store for records beyond a gap: a generation of which it holds nothing."""
        try:
            async with asyncio.timeout(STORE_WAIT.total_seconds()):
                found = await listed(self._store, self._names, self._config.name, highest)
                for generation in reversed(found):
                    record = await self._record(generation)
                    if record is not None:
                        self._note(record, RECORDED)
                        return
        except (UnavailableError, TimeoutError) as error:
            _log.warning("store_not_listed", generation=highest + 1, reason=str(error) or "no answer in time")

    async def _record(self, generation: int) -> ReleasePredicate | None:
        environment = self._config.name
        data = await self._store.read(record_path(self._names, environment, generation))
        if data is None:
            return None
        try:
            return (await asyncio.to_thread(read_release_record, data, self._config.trust, environment, generation))[1]
        except UntrustedError:
            return None

    def _note(self, said: ReleasePredicate, where: str) -> None:
        if said.environment != self._config.name:
            return
        if self._seen is None or said.generation > self._seen.generation:
            self._seen = Seen(said.generation, said.version, said.checksum, where)


async def _reached(brokers: Sequence[str]) -> None:
    """Return when a broker takes a connection: the driver needs its whole timeout to say that none does.

    Raises:
        UnavailableError: none does.
    """
    for broker in brokers:
        host, _, port = broker.strip().rpartition(":")
        try:
            async with asyncio.timeout(KAFKA_WAIT.total_seconds()):
                _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        except (OSError, TimeoutError, ValueError):
            continue
        writer.close()
        return
    raise UnavailableError("no broker takes a connection")
