"""Deadline, heartbeat and retry policy of each step, each with its reason.

Attempts are finite everywhere: a step whose attempts are spent becomes visible (``needs a person``), it never
retries for ever behind a green "Running". Permanent errors are marked where they are raised
(``activities.failures``), so no list of exception names is kept here.
"""

from dataclasses import dataclass, field
from datetime import timedelta

from temporalio.common import RetryPolicy

QUICK = RetryPolicy(
    initial_interval=timedelta(milliseconds=200),  # most faults are a restart of one process: back within a second
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=5),
    maximum_attempts=8,  # about 20 s in all; then a person sees it
)
SLOW = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=15),
    maximum_attempts=6,  # about 45 s between first and last
)
LONG = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=1.5,
    maximum_interval=timedelta(seconds=10),
    maximum_attempts=30,  # a long activity resumes what it did; 30 crashes of its worker are too many
)

ONCE = RetryPolicy(maximum_attempts=1)  # best effort: progress messages


@dataclass(frozen=True, slots=True)
class StepPolicy:
    """How one activity is called.

    Args:
        start_to_close: longest single attempt.
        heartbeat: longest silence of an attempt; None where an attempt is short anyway.
        retry: attempts before a person is asked.
    """

    start_to_close: timedelta
    heartbeat: timedelta | None = None
    retry: RetryPolicy = field(default_factory=lambda: QUICK)

    @property
    def budget(self) -> timedelta:
        """How long a paused activity is waited for: one whole attempt, and what its retries may cost.

        An attempt that fails is given 15 s, the longest silence of one that lives and the limit of a short one.
        """
        retries = self.retry.maximum_attempts - 1
        longest = self.retry.maximum_interval or self.retry.initial_interval
        pauses = sum(
            (
                min(self.retry.initial_interval * self.retry.backoff_coefficient**number, longest)
                for number in range(retries)
            ),
            timedelta(),
        )
        return self.start_to_close + pauses + timedelta(seconds=15) * retries


READ = StepPolicy(timedelta(seconds=15))  # one or two HTTP calls
WRITE = StepPolicy(timedelta(seconds=20))  # one HTTP call that commits in Postgres
PROVE = StepPolicy(timedelta(seconds=15), retry=LONG)  # polls until the relay has delivered: a retry is the poll
CONFIRM = StepPolicy(timedelta(seconds=30), retry=LONG)  # reads every place again; polls as PROVE does
SLACK = StepPolicy(timedelta(seconds=20), retry=QUICK)
SLACK_ONCE = StepPolicy(timedelta(seconds=20), retry=ONCE)
GIT = StepPolicy(timedelta(seconds=60), heartbeat=timedelta(seconds=20), retry=SLOW)  # waits for a lock file
SIEM = StepPolicy(timedelta(seconds=60), heartbeat=timedelta(seconds=10), retry=SLOW)  # waits for a consumer group


def gate(deadline_seconds: int) -> StepPolicy:
    """Return the policy of the regression gate: its own deadline, and time to be killed at it."""
    return StepPolicy(timedelta(seconds=deadline_seconds + 30), heartbeat=timedelta(seconds=15), retry=SLOW)


def sync(deadline_seconds: int) -> StepPolicy:
    """Return the policy of the sync: it ends by its own deadline and names who lags; as long for golden requests."""
    return StepPolicy(timedelta(seconds=2 * deadline_seconds + 15), heartbeat=timedelta(seconds=10), retry=SLOW)


def watch(seconds: float) -> StepPolicy:
    """Return the policy of a watch that may last ``seconds``: only heartbeats prove that it lives."""
    return StepPolicy(timedelta(seconds=seconds + 120), heartbeat=timedelta(seconds=15), retry=LONG)


def await_closed() -> StepPolicy:
    """Return the policy of waiting for another run to close: as long as that run lives, in slices of an hour."""
    return StepPolicy(timedelta(hours=1), heartbeat=timedelta(seconds=15), retry=LONG)


PERSISTENT_PAUSE = timedelta(seconds=15)
"""After the point of no return, and in a rollback, a spent step is tried again by itself after this pause."""

PERSISTENT_PAUSE_MAX = timedelta(minutes=5)
"""The pause doubles up to this, so that a day of outage stays under 2,000 events of history."""

AUDIT_DEADLINE = timedelta(hours=1)
"""How long a refused run stays open to get its refusal audited and announced."""
