"""Holds the last good constitution: fetch, verify, and only then compare generations (invariant 8).

Rules (docs/architecture.md, Consumers; docs/adr/0007-consumers.md):

1. Nothing counts before its release statement, environment, ring, bytes and signatures have verified.
2. The generation never goes down (TUF 5.4.3, rollback attack). An older release, however well signed, is a replay:
   ignored and reported.
3. On any error the last good constitution stays, and ``last_error`` says what was wrong and when.
4. Only an answer that confirms what is obeyed, or brings something newer, counts as contact: a service that answers
   below a generation that a signed event has shown is as silent as one that does not answer. One that says that it
   was sure some seconds ago (``Age``) is a contact of then.
5. The obeyed release is one immutable value, swapped in one assignment: a request in flight keeps the one it has.
"""

import asyncio
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import structlog

from constitution.errors import ConstitutionError, TransportError, UnavailableError, UntrustedError
from constitution.policy.consumer_api import FollowerState, PolicyStatus
from constitution.policy.lapse import days_warned
from constitution.trust.trust_policy import TrustPolicy
from constitution_follow.fetch import Absent, ConstitutionSource, Fetched, Unchanged
from constitution_follow.hint import release_of
from constitution_follow.metrics import FollowingMetrics
from constitution_follow.obeyed import Obeyed, nothing
from constitution_follow.verify import verified
from constitution_follow.view import View
from signatures.trust_holder import TrustHolder

_log = structlog.get_logger(__name__)


class Replica:
    """What one replica obeys, and the only way to change it.

    Args:
        target: id of this replica.
        environment: whose statements are obeyed.
        ring: whose releases are obeyed.
        max_staleness_s: seconds without contact after which it is stale.
    """

    def __init__(
        self,
        *,
        source: ConstitutionSource,
        trust: TrustHolder,
        environment: str,
        target: str,
        ring: str,
        max_staleness_s: float,
        metrics: FollowingMetrics,
    ) -> None:
        self._source = source
        self._trust = trust
        self._verified_by: TrustPolicy | None = None  # what is obeyed
        self._environment = environment
        self._target = target
        self._ring = ring
        self._max_staleness_s = max_staleness_s
        self._metrics = metrics
        self._obeyed: Obeyed | None = None
        self._etag: str | None = None
        self._signed_generation = 0  # the highest generation that a verified statement has shown for this ring
        self._contact_at: datetime | None = None
        self._contact_monotonic = 0.0
        self._last_error: str | None = None
        self._last_failure: ConstitutionError | None = None
        self._failed_monotonic: float | None = None
        self._turn = asyncio.Lock()
        self._begun = 0
        self._begun_whole = 0
        self._warned: int | None = None  # days before expiry that the log has told of

    def view(self) -> View:
        """Return what to obey at this moment, in one piece.

        Raises:
            UnavailableError: current has never been read.
        """
        obeyed = self._obeyed
        if obeyed is None:
            raise UnavailableError(
                f"{self._target} has not yet read the current constitution: {self._last_error or 'starting'}",
                hint="look at /readyz of this target and of constitution-service",
            )
        return View(obeyed=obeyed, stale=self._stale(), now=datetime.now(UTC))

    def status(self) -> PolicyStatus:
        """Return what is obeyed, since when, and what was last wrong."""
        obeyed = self._obeyed
        return PolicyStatus(
            target=self._target,
            ring=self._ring,
            version=obeyed.version if obeyed else None,
            checksum=obeyed.checksum if obeyed else None,
            generation=obeyed.generation if obeyed else 0,
            loaded_at=obeyed.loaded_at if obeyed and obeyed.generation else None,
            last_contact_at=self._contact_at,
            state=self._state(),
            last_error=self._last_error,
            expires_at=obeyed.terms.expires_at if obeyed and obeyed.terms else None,
        )

    def behind(self) -> bool:
        """Tell whether a signed event has shown a generation that has not been fetched yet."""
        return self._obeyed is None or self._signed_generation > self._obeyed.generation

    def failed_within(self, seconds: float) -> bool:
        """Tell whether the last read failed, and less than ``seconds`` ago."""
        return self._failed_monotonic is not None and time.monotonic() - self._failed_monotonic < seconds

    async def hint(self, value: bytes | None) -> None:
        """Take a ``constitution.updated`` record: verify its statement, and fetch at once when it is newer.

        Never raises for what the record holds or for a failed fetch: both are reported, and the next poll follows.
        """
        try:
            release = await asyncio.to_thread(release_of, value, self._trust.policy)
        except ConstitutionError as error:
            self._report("untrusted_event", error.message)
            return
        if self._ring not in release.rings:
            return
        if self._obeyed is not None and release.generation <= self._obeyed.generation:
            return  # a duplicate, or late: nothing to fetch
        self._signed_generation = max(self._signed_generation, release.generation)
        await self.poll()

    async def poll(self) -> None:
        """Ask whether something changed (ETag). Never raises: a failure is reported and the last good stays."""
        with suppress(ConstitutionError):  # reported where it was met
            await self._read(whole=False)
        self._warn()

    def _warn(self) -> None:
        """Log once for each of 30, 7 and 1 days before the document expires, and once it has."""
        terms = None if self._obeyed is None else self._obeyed.terms
        days = None if terms is None else days_warned(terms.expires_at, datetime.now(UTC))
        if terms is None or days is None or days == self._warned:
            return
        self._warned = days
        _log.warning(
            "constitution_expired" if days == 0 else "constitution_expires",
            target=self._target,
            version=self._obeyed.version if self._obeyed else None,
            expires_at=terms.expires_at.isoformat(),
            within_days=days,
            on_expiry=terms.on_expiry.value,
            grace_s=terms.grace.total_seconds(),
        )

    async def refresh(self) -> PolicyStatus:
        """Read the whole current constitution again, in a read that begins after this call, and verify all of it.

        Raises:
            UnavailableError: no answer; what was obeyed still is.
            UntrustedError: the answer does not verify; what was obeyed still is.
        """
        await self._read(whole=True)
        return self.status()

    async def revalidate(self) -> None:
        """Ask, in a read that begins after this call, whether something changed.

        Raises:
            ConstitutionError: the read failed; what was obeyed still is.
        """
        await self._read(whole=False)

    async def _read(self, *, whole: bool) -> None:
        """Read once. Callers that wait together share one read, as long as it began after each of them asked."""
        wanted = (self._begun_whole if whole else self._begun) + 1
        async with self._turn:
            if (self._begun_whole if whole else self._begun) >= wanted:
                if self._last_failure is not None:
                    raise self._last_failure
                return
            self._begun += 1
            self._begun_whole += whole
            try:
                await self._read_now(whole=whole)
            except ConstitutionError as error:
                self._last_failure = error
                self._failed_monotonic = time.monotonic()
                transient = isinstance(error, TransportError)
                self._metrics.fetched("unavailable" if transient else "refused")
                self._report("unavailable" if transient else "untrusted_value", error.message)
                raise
            except BaseException:  # cancelled, or a defect: no waiting caller may take this read for a success
                self._last_failure = UnavailableError("the read of the current constitution was broken off")
                self._failed_monotonic = time.monotonic()
                raise
            self._last_failure, self._failed_monotonic = None, None

    async def _read_now(self, *, whole: bool) -> None:
        known = self._obeyed
        generation = known.generation if known else 0
        changed = self._trust.policy is not self._verified_by  # then all of it is verified anew
        etag = None if whole or changed or self.behind() else self._etag
        answer = await self._source.fetch(
            etag=etag,
            min_generation=max(generation, self._signed_generation),
            certain=whole,
        )
        match answer:
            case Unchanged(age_s=age_s):
                if etag is None:
                    raise UntrustedError("the service says 'not modified' to somebody who asked for all of it")
                self._confirmed(age_s)
                self._metrics.fetched("same")
            case Absent():
                if generation or self._signed_generation:
                    raise UnavailableError(
                        f"the service says that there is no constitution, but generation "
                        f"{max(generation, self._signed_generation)} is signed"
                    )
                if known is None:
                    self._obey(nothing(datetime.now(UTC)))
                self._confirmed(0)
                self._metrics.fetched("absent")
            case Fetched():
                await self._consider(answer, known)

    async def _consider(self, answer: Fetched, known: Obeyed | None) -> None:
        trust = self._trust.policy
        offered = await asyncio.to_thread(
            verified,
            answer.current,
            trust=trust,
            environment=self._environment,
            ring=self._ring,
            now=datetime.now(UTC),
            known=known,
        )
        generation = known.generation if known else 0
        if offered.generation < max(generation, self._signed_generation):
            raise UntrustedError(
                f"an older release was offered: generation {offered.generation}, but "
                f"{max(generation, self._signed_generation)} is signed"
            )
        if known is not None and offered.generation == generation:
            if offered.checksum != known.checksum:
                raise UntrustedError(f"two different documents are signed as generation {generation}")
            self._metrics.fetched("same")
        else:
            self._obey(replace(offered, loaded_at=datetime.now(UTC)))  # now, not when its verification began
            self._metrics.fetched("new")
        self._etag, self._verified_by = answer.etag, trust
        self._signed_generation = max(self._signed_generation, offered.generation)
        self._confirmed(answer.age_s)

    def _obey(self, obeyed: Obeyed) -> None:
        before = self._obeyed
        self._obeyed = obeyed
        self._metrics.obeys(version=obeyed.version, checksum=obeyed.checksum, generation=obeyed.generation)
        self._metrics.expires(None if obeyed.terms is None else obeyed.terms.expires_at.timestamp())
        self._warned = None
        _log.info(
            "constitution_obeyed",
            target=self._target,
            ring=self._ring,
            generation=obeyed.generation,
            kind=obeyed.kind,
            version=obeyed.version,
            checksum=obeyed.checksum,
            before=before.generation if before else None,
        )

    def _confirmed(self, age_s: int) -> None:
        """Count a contact: as of the moment at which the service itself was sure, which never goes back."""
        self._contact_monotonic = max(self._contact_monotonic, time.monotonic() - age_s)
        at = datetime.now(UTC) - timedelta(seconds=age_s)
        self._contact_at = at if self._contact_at is None else max(self._contact_at, at)
        self._metrics.contact(self._contact_at.timestamp())

    def _report(self, reason: str, message: str) -> None:
        self._metrics.refused(reason)
        self._last_error = f"{datetime.now(UTC).isoformat(timespec='seconds')} {reason}: {message}"
        _log.warning("constitution_not_followed", target=self._target, reason=reason, detail=message)

    def _stale(self) -> bool:
        return time.monotonic() - self._contact_monotonic > self._max_staleness_s

    def _state(self) -> FollowerState:
        if self._obeyed is None:
            return "starting"
        view = self.view()
        if view.stale:
            return "stale"
        if view.obeyed.policy is None:
            return "no_constitution"
        return "expired" if view.expired else "live"
