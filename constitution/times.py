"""One form of a time in every input: a date, a time of day and an offset from UTC (RFC 3339).

pydantic alone also takes bare numbers and texts of digits for seconds since 1970, so that ``20261201`` is August 1970.
"""

import re
from datetime import UTC, date, datetime
from typing import Any

EXAMPLE = "2026-11-22T10:00:00Z"
EXAMPLE_DAY = "2027-05-30"
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_FORM = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)


def checked(value: Any) -> Any:
    """Return what pydantic may read as a time: an RFC 3339 text, or a ``datetime`` of our own code or of TOML.

    Raises:
        ValueError: anything else, or a time that is outside the years 1 to 9999 once it is in UTC.
    """
    if isinstance(value, datetime):
        return _in_range(value)
    if not isinstance(value, str) or not _FORM.fullmatch(value):
        raise ValueError(f"is no time like {EXAMPLE}: a date, a time of day and a time zone")
    return _in_range(_read(value))


def checked_day(value: Any) -> Any:
    """Return what pydantic may read as a day: a text like ``2027-05-30``, or a ``date`` of our own code or of TOML.

    Raises:
        ValueError: anything else, a time among it.
    """
    if type(value) is date or (isinstance(value, str) and _DAY.fullmatch(value)):
        return value
    raise ValueError(f"is no day like {EXAMPLE_DAY}")


def _read(text: str) -> datetime:
    digits = re.sub(r"(\.[0-9]{6})[0-9]+", r"\1", text.upper())  # digits beyond a microsecond are cut off
    try:
        return datetime.fromisoformat(digits)
    except ValueError as error:
        raise ValueError(f"is no time like {EXAMPLE}: {error}") from error


def _in_range(value: datetime) -> datetime:
    if value.tzinfo is not None:
        try:
            value.astimezone(UTC)
        except OverflowError as error:
            raise ValueError(f"is no time like {EXAMPLE}: it is outside the years 1 to 9999 in UTC") from error
    return value
