"""Holds the answer of ``GET /v1/constitution`` for each ring, and says how sure it is (invariants 1 and 8).

Rules:

1. Nothing is held that did not verify like the value of an untrusted writer (``signatures.current``): once per release
   and version of the trust policy. What a new version no longer vouches for is given to nobody: a consumer that starts
   would deny by it anyway, and a service that starts would not serve it.
2. A read of PostgreSQL confirms all rings at once: one statement, so never half of two releases. It is replaced whole,
   in one assignment. It counts from the moment at which it *began*.
3. For ``FRESH_FOR`` after that an answer needs no question. PostgreSQL is read again on every ``NOTIFY`` of a commit
   and after ``POLL`` at the latest; so, in every process, an answer lacks a commit for ``FRESH_FOR`` at most. The
   runbook's proof waits for that (``Delivery.lagging``): after it nobody reads an older release that is not marked.
   A process that the proof cannot see, because it could not write its heartbeat, has no fresh answer.
4. Who must be sure asks for a read that begins after the question: ``certain``, or a ``min_generation`` above what is
   held. While PostgreSQL does not confirm, they get no answer.
5. Others then get what was confirmed last, and its age, until ``max_staleness``. What PostgreSQL says without a valid
   signature, or an older release than the one held, confirms nothing.
6. While PostgreSQL is known to have lost releases, nobody gets an answer: the generation guard says so.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType

import structlog

from adapters.environment_config import EnvironmentConfig
from adapters.postgres import Connection, Database
from constitution.errors import UnavailableError, UntrustedError
from constitution.release import CurrentConstitution
from constitution.trust.trust_policy import TrustPolicy
from services.constitution_service.errors import NoConstitutionError
from services.constitution_service.generations.guard import GenerationGuard
from services.constitution_service.serving.answer import Answer, make
from services.constitution_service.tables import releases
from services.constitution_service.tables.releases import FRESH_FOR, SERVED_WITHIN, Pointer
from signatures.current import verify_current

POLL = timedelta(milliseconds=500)  # how long a lost NOTIFY can delay
READ_WITHIN = timedelta(seconds=3)  # then the read has failed: a connect takes no longer
CONFIRMED_WITHIN = timedelta(seconds=1)  # a reader waits no longer for PostgreSQL, where there is something to give
FIRST_WITHIN = timedelta(seconds=5)  # and no longer where there is nothing: a restarted server is reached within it
MAX_STALENESS = timedelta(seconds=60)  # as long as a consumer obeys without contact

FRESH_FOR_S = FRESH_FOR.total_seconds()
LISTED_FOR_S = (SERVED_WITHIN - FRESH_FOR).total_seconds()  # less than the list keeps who gives no sign of life
_log = structlog.get_logger(__name__)


def now() -> float:
    """Return seconds that go on while the machine is suspended: a process that wakes late must know it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Held:
    """The answer of one ring, when the last read that confirmed it began (``now``), and the policy that proved it."""

    answer: Answer
    confirmed: float
    trust: TrustPolicy


@dataclass(frozen=True, slots=True)
class Reading:
    """What one read of PostgreSQL left in memory: a whole, never changed."""

    began: float
    generation: int  # all up to it is in here
    rings: Mapping[str, Held]


@dataclass(frozen=True, slots=True)
class Served:
    """An answer; ``age_s`` is None while it is confirmed, else the seconds since it was."""

    answer: Answer
    age_s: int | None


@dataclass(slots=True)
class Commit:
    """Whether a transaction has come to where it puts a release live."""

    begun: bool = False


class Memory:
    """See the module. ``run`` is what reads; without it nothing is ever confirmed.

    Args:
        config: environment and trust policy.
        guard: knows when PostgreSQL has lost releases.
        max_staleness: how old an answer may be while PostgreSQL does not confirm it.
        clock: seconds, never going back.
    """

    def __init__(
        self,
        *,
        config: EnvironmentConfig,
        guard: GenerationGuard,
        max_staleness: timedelta = MAX_STALENESS,
        clock: Callable[[], float] = now,
    ) -> None:
        self._config = config
        self._guard = guard
        self._max_staleness_s = max_staleness.total_seconds()
        self._clock = clock
        self._reading: Reading | None = None
        self._listed = float("-inf")
        self._not_before = 0.0  # a commit of this process: readings that began earlier are of no use
        self._trouble: Exception | None = None  # of the last read
        self._refused: dict[str, str] = {}  # ring -> why what PostgreSQL says of it confirms nothing
        self._waiting: list[asyncio.Future[None]] = []
        self._wake = asyncio.Event()
        self.changed = asyncio.Event()
        """Set when ``generation`` has changed; whoever waits for it clears it."""

    @property
    def generation(self) -> int:
        """The generation up to which every answer given from now on is right; 0 before the first read."""
        return 0 if self._reading is None or self._refused else self._reading.generation

    def fresh(self, ring: str) -> Answer | None:
        """Return the answer that may be given without asking anybody; None where there is none."""
        reading = self._reading
        if reading is None or self._guard.behind is not None:
            return None
        held = reading.rings.get(ring)
        return held.answer if held is not None and self._confirms(held.confirmed, self._clock()) else None

    async def read(self, ring: str, *, min_generation: int, certain: bool) -> Served:
        """Return what the ring must obey.

        Args:
            ring: its name.
            min_generation: a memory that holds an older release is bypassed.
            certain: whether only a read that begins now will do.

        Raises:
            NoConstitutionError: before the ring's first release.
            BehindError: PostgreSQL has lost releases; consumers keep the one that they obey.
            UnavailableError: PostgreSQL did not confirm it, and what is held may not be given.
        """
        held = self._held(ring)
        certain = certain or (held is not None and held.answer.pointer.generation < min_generation)
        if not certain and (answer := self.fresh(ring)) is not None:
            return Served(answer, None)
        asked, reading = self._clock(), self._reading
        if not certain and held is None and reading is not None and self._confirms(reading.began, asked):
            self._guard.refuse_to_serve()
            self._require_none(ring)
        usable = not certain and held is not None and asked - held.confirmed <= self._max_staleness_s
        if not usable or (self._trouble is None and ring not in self._refused):
            await self._confirmed(CONFIRMED_WITHIN if usable else FIRST_WITHIN)
        self._guard.refuse_to_serve()
        return self._after(ring, asked, certain=certain)

    @asynccontextmanager
    async def committing(self) -> AsyncIterator["Commit"]:
        """Enclose a transaction that may put a release live: after it, nothing is given that was read before it ended.

        Also when it failed, once ``begun``: a commit whose answer was lost may have happened.
        """
        commit = Commit()
        try:
            yield commit
        finally:
            if commit.begun:
                self._not_before = self._clock()
                self._wake.set()

    async def start(self) -> None:
        """Wait a moment for the first read, so that the first answer is in memory; run must be under way."""
        await self._confirmed(CONFIRMED_WITHIN)

    def listed(self, began: float) -> None:
        """Note that this process is in the list that the proof reads, by a heartbeat that began then (``now``)."""
        self._listed = began

    def notice(self) -> None:
        """Read again soon: something was committed."""
        self._wake.set()

    async def run(self, database: Database) -> None:
        """Read when woken, and every ``POLL``, until cancelled.

        Args:
            database: whose connections no crowd of callers waits for.
        """
        while True:
            self._wake.clear()
            waiting, self._waiting = self._waiting, []  # those who asked before this read begins
            try:
                async with asyncio.timeout(READ_WITHIN.total_seconds()):
                    await self._read(database)
                self._trouble = None
            except TimeoutError as error:
                self._failed(error, "no answer in time")
            except UnavailableError as error:
                self._failed(error, error.message)
            except Exception as error:  # noqa: BLE001 - one round's defect must not end the reading; it is logged
                self._failed(error, f"{type(error).__name__}")
                _log.exception("current_not_read")
            for one in waiting:
                if not one.done():
                    one.set_result(None)
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL.total_seconds()):
                    await self._wake.wait()

    def _held(self, ring: str) -> Held | None:
        return None if self._reading is None else self._reading.rings.get(ring)

    def _confirms(self, began: float, moment: float) -> bool:
        is_seen = moment - self._listed <= LISTED_FOR_S
        return is_seen and began >= self._not_before and moment - began <= FRESH_FOR_S

    def _require_none(self, ring: str) -> None:
        """Say that a ring has no release; return if there may be one, which is refused."""
        if ring not in self._refused:
            raise NoConstitutionError(f"the ring {ring} of {self._config.name} has no constitution yet")

    async def _confirmed(self, within: timedelta) -> None:
        """Wait for a read that begins after this call, but no longer than that."""
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        self._wake.set()
        await asyncio.wait({waiting}, timeout=within.total_seconds())

    def _after(self, ring: str, asked: float, *, certain: bool) -> Served:
        """Judge what is held now, for a question that was asked at that moment."""
        reading, held = self._reading, self._held(ring)
        if held is not None and held.confirmed >= asked:
            return Served(held.answer, None)
        if held is None and reading is not None and reading.began >= asked:
            self._require_none(ring)
        if held is not None and not certain and held.confirmed >= self._not_before:
            age = self._clock() - held.confirmed
            if age <= self._max_staleness_s:
                return Served(held.answer, None if self._confirms(held.confirmed, self._clock()) else int(age))
        reason = self._refused.get(ring) or str(self._trouble or "PostgreSQL did not answer in time")
        raise UnavailableError(f"the current release cannot be confirmed: {reason}")

    def _failed(self, error: Exception, reason: str) -> None:
        if self._trouble is None:
            _log.warning("current_not_confirmed", reason=reason)
        self._trouble = error

    async def _read(self, database: Database) -> None:
        observed, began, trust = self._guard.observed, self._clock(), self._config.trust
        async with database.connection() as connection:
            snapshot = await releases.read_snapshot(connection, self._config.name)
            self._guard.compare(observed, snapshot.highest)
            self._guard.refuse_to_serve()
            held = {} if self._reading is None else self._reading.rings
            refused: dict[str, str] = {}
            rings: dict[str, Held] = {}
            for ring in held.keys() | snapshot.pointers.keys():
                known = held.get(ring)
                try:
                    answer = await self._answer(connection, ring, snapshot.pointers.get(ring), known, trust)
                except UntrustedError as error:
                    refused[ring] = error.message
                    if known is not None and known.trust is trust:
                        rings[ring] = known
                else:
                    if answer is not None:
                        rings[ring] = Held(answer, began, trust)
        for ring, reason in refused.items():
            if self._refused.get(ring) != reason:
                _log.error("current_refused", ring=ring, reason=reason)
        before, self._refused = self.generation, refused
        self._reading = Reading(began, snapshot.highest, MappingProxyType(rings))
        if self.generation != before:
            self.changed.set()

    async def _answer(
        self, connection: Connection, ring: str, pointer: Pointer | None, known: Held | None, trust: TrustPolicy
    ) -> Answer | None:
        """Return the answer for a pointer; None where the ring has none any more, because its release was lost.

        Raises:
            UntrustedError: the release does not verify, or is older than the one held, which was not lost.
        """
        if known is not None:
            if pointer == known.answer.pointer and known.trust is trust:
                return known.answer
            had = known.answer.pointer.generation
            older = pointer is None or pointer.generation < had
            if older and not await releases.was_lost(connection, self._config.name, had):
                says = 0 if pointer is None else pointer.generation
                raise UntrustedError(f"PostgreSQL says that generation {says} is current, after generation {had}")
        if pointer is None:
            return None
        try:
            current = await releases.read_current(connection, self._config.name, pointer.generation)
        except (KeyError, ValueError) as error:  # a signature that is gone, a document that is no text
            raise UntrustedError(f"PostgreSQL's row of generation {pointer.generation} cannot be read") from error
        return await asyncio.to_thread(self._proved, ring, pointer, current, trust)

    def _proved(self, ring: str, pointer: Pointer, current: CurrentConstitution, trust: TrustPolicy) -> Answer:
        release = verify_current(current, trust=trust, environment=self._config.name, ring=ring)
        signed = Pointer(release.generation, release.kind, release.version, release.checksum)
        if signed != pointer:
            raise UntrustedError(f"PostgreSQL's row of generation {pointer.generation} is not what its statement says")
        return make(pointer, current)
