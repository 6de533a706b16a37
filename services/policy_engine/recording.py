"""A bounded, uniform sample of the last day's evaluation requests, encrypted, that never leaves this process.

What for: replaying them through a candidate shows what it would change, before it is live (docs/watch.md, Expected
change). Only counts are ever told.

**Uniform and bounded.** Each request gets a random mark in [0, 1) and is kept if it is below the threshold in force.
When there is no room, the threshold is halved and what lies above it is forgotten. ``sample`` gives the requests below
the *lowest* threshold in force during the time it covers: each request of that time is among them with the same
probability, so busy hours do not crowd out quiet ones, nor later traffic earlier one. When a crowded hour has passed
out of the window, the threshold rises again.

**Encrypted at rest.** Each request is sealed with AES-256-GCM under a key that is made at start and exists in this
process's memory only; nonces count up, so none is used twice. A disk, a snapshot or a backup holds nothing that can
be read, there is no key to manage, and a restart forgets everything: the sample begins anew, and an engine says how
much it has. The file has no name (``O_TMPFILE``): it vanishes with the process, however that ends.

Not thread-safe: recorded and sampled from the event loop.
"""

import os
import random
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from prometheus_client import CollectorRegistry, Counter, Gauge

from constitution.errors import InvalidRequestError
from constitution.policy.evaluation import EvaluationRequest

_log = structlog.get_logger(__name__)

KEY_BITS = 256
NONCE_BYTES = 12
EASINGS = 16  # times per window that the threshold may double again


@dataclass(frozen=True, slots=True)
class _Kept:
    """One sealed request: when it came, its mark, the threshold it passed, where it lies."""

    at: float
    mark: float
    threshold: float
    number: int
    offset: int
    size: int


class Sample:
    """A uniform sample at one moment; close it. May be read in another thread while recording goes on.

    Args:
        file: descriptor of the file that the requests lie in; closed with this.
        span_s: seconds that the sample reaches back.
    """

    def __init__(self, file: int | None, kept: list[_Kept], seal: AESGCM, span_s: float) -> None:
        self._file = file
        self._kept = kept
        self._seal = seal
        self.span_s = span_s

    def __len__(self) -> int:
        return len(self._kept)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def requests(self) -> Iterator[EvaluationRequest]:
        """Give the requests, oldest first.

        Raises:
            InvalidTag: the bytes on the disk are not those that were written.
        """
        for kept in self._kept:
            if self._file is None:
                return
            sealed = os.pread(self._file, kept.size, kept.offset)
            if len(sealed) != kept.size:
                raise InvalidTag
            nonce = kept.number.to_bytes(NONCE_BYTES, "big")
            yield EvaluationRequest.model_validate_json(self._seal.decrypt(nonce, sealed, None))


class Recording:
    """The sample; close it.

    Args:
        directory: on whose file system the nameless file is made.
        requests: how many are kept at most; 0 keeps none.
        room: bytes of sealed requests at most; the file may be twice as long before it is made anew.
        window_s: seconds after which a request is forgotten.
        registry: where the gauges go.
        target: id of this replica.
        clock: seconds, never going back.
        dice: gives the marks, uniform in [0, 1).

    Raises:
        InvalidRequestError: the directory cannot be written.
    """

    def __init__(
        self,
        *,
        directory: Path,
        requests: int,
        room: int,
        window_s: float,
        registry: CollectorRegistry,
        target: str,
        clock: Callable[[], float] = time.monotonic,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._directory = directory
        self._requests = requests
        self._room = room
        self._window_s = window_s
        self._clock = clock
        self._dice = dice
        self._seal = AESGCM(AESGCM.generate_key(KEY_BITS))
        if requests and not os.access(directory, os.W_OK | os.X_OK):
            raise InvalidRequestError(
                f"RECORDING_DIRECTORY {directory} cannot be written", hint="RECORDING_REQUESTS=0 records nothing"
            )
        self._file: IO[bytes] | None = None  # made for the first request
        self._end = 0
        self._live = 0  # bytes of what is kept; the rest of the file was forgotten
        self._number = 0
        self._threshold = 1.0 if requests else 0.0
        self._kept: deque[_Kept] = deque()
        self._ease_at = clock() + window_s / EASINGS
        gauge = Gauge(
            "policy_engine_recorded_requests", "Evaluation requests that are kept.", ["target"], registry=registry
        )
        gauge.labels(target).set_function(lambda: len(self._kept))
        self._failed = Counter(
            "policy_engine_recording_failed_total", "Requests that could not be kept.", ["target"], registry=registry
        ).labels(target)

    def close(self) -> None:
        """Forget everything."""
        self._threshold = 0.0
        self._kept.clear()
        if self._file is not None:
            self._file.close()
            self._file = None

    def record(self, request: EvaluationRequest) -> None:
        """Keep a request, perhaps; costs a random number and a look at the clock where it is not. Never raises."""
        mark, now = self._dice(), self._clock()
        if mark >= self._threshold and now < self._ease_at:
            return
        try:
            self._forget(now)
            if mark < self._threshold:
                self._store(request, mark, now)
        except (OSError, ValueError) as error:  # a full disk, a file that was closed: no reason to fail an evaluation
            self._failed.inc()
            _log.warning("recording_failed", detail=str(error))

    def sample(self, most: int) -> Sample:
        """Return a uniform sample of the window's requests, ``most`` of them at most."""
        now = self._clock()
        self._forget(now)
        if not self._kept or self._file is None:
            return Sample(None, [], self._seal, 0.0)
        lowest = min(self._threshold, *(kept.threshold for kept in self._kept))
        marks = sorted(kept.mark for kept in self._kept if kept.mark < lowest)
        if len(marks) > most:
            lowest = marks[most]
        chosen = [kept for kept in self._kept if kept.mark < lowest]
        # A descriptor of its own: the file is only ever appended to, and may be replaced meanwhile.
        return Sample(os.dup(self._file.fileno()), chosen, self._seal, now - self._kept[0].at)

    def _store(self, request: EvaluationRequest, mark: float, now: float) -> None:
        self._number += 1
        nonce = self._number.to_bytes(NONCE_BYTES, "big")
        sealed = self._seal.encrypt(nonce, request.model_dump_json().encode(), None)
        size = len(sealed)
        if not self._make_room(size) or mark >= self._threshold:
            return
        if self._file is None:
            self._file = self._nameless()
        if os.pwrite(self._file.fileno(), sealed, self._end) != size:
            raise OSError("the disk took a part only")
        self._kept.append(_Kept(now, mark, self._threshold, self._number, self._end, size))
        self._end += size
        self._live += size

    def _nameless(self) -> IO[bytes]:
        return tempfile.TemporaryFile(dir=self._directory, buffering=0)

    def _forget(self, now: float) -> None:
        """Forget what is older than the window; ease the threshold once a crowded time has passed out of it."""
        while self._kept and self._kept[0].at <= now - self._window_s:
            self._live -= self._kept.popleft().size
        if now < self._ease_at:
            return
        self._ease_at = now + self._window_s / EASINGS
        if self._threshold < 1.0 and len(self._kept) <= self._requests // 4 and self._live <= self._room // 4:
            self._threshold = min(1.0, 2.0 * self._threshold) if self._requests else 0.0

    def _make_room(self, size: int) -> bool:
        """Halve the threshold until there is room; say whether there is."""
        if size > self._room // 4:
            return False  # one request must not push out all others
        while len(self._kept) >= self._requests or self._live + size > self._room:
            self._threshold *= 0.5
            self._kept = deque(
                replace(kept, threshold=min(kept.threshold, self._threshold))
                for kept in self._kept
                if kept.mark < self._threshold
            )
            self._live = sum(kept.size for kept in self._kept)
        if self._file is not None and self._end + size > 2 * self._room:
            self._compact(self._file)
        return True

    def _compact(self, file: IO[bytes]) -> None:
        """Copy what is kept into a new file: the old one is at least half forgotten."""
        fresh = self._nameless()
        moved: deque[_Kept] = deque()
        end = 0
        for kept in self._kept:
            os.pwrite(fresh.fileno(), os.pread(file.fileno(), kept.size, kept.offset), end)
            moved.append(replace(kept, offset=end))
            end += kept.size
        file.close()
        self._file, self._kept, self._end = fresh, moved, end
