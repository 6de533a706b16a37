"""The version of a constitution: ``major.minor.patch``, totally ordered.

A subset of SemVer 2.0.0 (semver.org §2, §11) without pre-release and build parts: those make versions that are
equal in precedence but differ in text, and "higher than every version ever live" must have one answer.
"""

import re
from dataclasses import dataclass

from constitution.errors import InvalidRequestError

VERSION_PATTERN = r"^(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})$"
_MATCHER = re.compile(VERSION_PATTERN)


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """A version; compares by major, then minor, then patch."""

    major: int
    minor: int
    patch: int

    @classmethod
    def parse(cls, text: str) -> "Version":
        """Read ``1.4.0``.

        Raises:
            InvalidRequestError: not three numbers of at most nine digits, without leading zeros.
        """
        match = _MATCHER.fullmatch(text)
        if match is None:
            raise InvalidRequestError(
                f"{text[:64]!r} is not a version", hint="write major.minor.patch, e.g. 1.4.0, without leading zeros"
            )
        major, minor, patch = match.groups()
        return cls(int(major), int(minor), int(patch))

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"
