"""What was found out about one thing of an installation, and what to do about it."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from constitution.errors import ConstitutionError
from signatures.tokens import CLOCK_SKEW


class State(StrEnum):
    """A check never says more than was seen: who may not ask, or is not told where to, cannot tell."""

    OK = "ok"
    MISSING = "missing"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report.

    Args:
        place: the server or the file, by the name of its setting where there is one.
        subject: what was looked at there.
        state: what was seen.
        detail: for people; holds no secret.
        command: what to type or to do; empty where all is well.
    """

    place: str
    subject: str
    state: State
    detail: str
    command: str = ""

    def as_json(self) -> dict[str, str]:
        """Return it as the report's JSON has it."""
        return {
            "place": self.place,
            "subject": self.subject,
            "state": self.state.value,
            "detail": self.detail,
            "command": self.command,
        }


def ok(place: str, subject: str, detail: str) -> Check:
    """All is well."""
    return Check(place, subject, State.OK, detail)


def missing(place: str, subject: str, detail: str, command: str) -> Check:
    """It is not there, or not as it must be."""
    return Check(place, subject, State.MISSING, detail, command)


def cannot_tell(place: str, subject: str, detail: str, command: str) -> Check:
    """It could not be looked at."""
    return Check(place, subject, State.CANNOT_TELL, detail, command)


def not_set(name: str, process: str) -> Check:
    """Nothing names this server here."""
    return cannot_tell(
        name, "address", f"{name} is not set here, so it was not looked at", f"give {name} the value that {process} has"
    )


def refused(place: str, subject: str, error: ConstitutionError, command: str) -> Check:
    """A call to it failed; the error's own command is the better one."""
    return missing(place, subject, error.message, error.hint or command)


def clock(place: str, theirs: datetime, asked: datetime, answered: datetime, exact: timedelta) -> Check:
    """Compare a server's clock with ours.

    Args:
        place: the server.
        theirs: what it said, at some moment between the next two.
        asked: our clock before the question.
        answered: our clock after the answer.
        exact: how coarse ``theirs`` is.
    """
    ahead = max(theirs - answered - exact, asked - theirs - exact, timedelta())  # at least
    if ahead > CLOCK_SKEW:
        return missing(
            place,
            "clock",
            f"its clock and this machine's differ by {ahead.total_seconds():.0f} s or more;"
            f" tokens allow {CLOCK_SKEW.total_seconds():.0f} s",
            "timedatectl status  # on both machines: NTP must be active and the clock synchronized",
        )
    return ok(place, "clock", f"agrees with this machine's, within {CLOCK_SKEW.total_seconds():.0f} s")


def now() -> datetime:
    """Return this machine's time."""
    return datetime.now(UTC)
