"""The entries of a pinned Sigstore root, and which are in force.

sigstore-python ignores the end of a log or of Fulcio when it verifies, so what is handed to it is filtered here.
Source: github.com/sigstore/protobuf-specs, sigstore_trustroot.proto.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from constitution import strict_json

LOGS = ("tlogs", "ctlogs")
AUTHORITIES = ("certificateAuthorities", "timestampAuthorities")
_WORDS = {
    "tlogs": "signature log",
    "ctlogs": "certificate log",
    "certificateAuthorities": "certificates",
    "timestampAuthorities": "timestamps",
}


@dataclass(frozen=True, slots=True)
class RootEntry:
    """One log or authority.

    Args:
        part: which list of the root it is in.
        url: where it is, or was.
        start: since when it counts; None: always.
        end: until when; None: no end is known.
    """

    part: str
    url: str
    start: datetime | None
    end: datetime | None

    def in_force(self, now: datetime, begun_by: datetime | None = None) -> bool:
        """Say whether it counts: begun by then, and not ended by now, whenever it signed.

        Args:
            now: the time to judge by.
            begun_by: when a bundle was signed: who began later had no part in it. None: now.
        """
        return not (
            (self.start is not None and self.start > (begun_by or now)) or (self.end is not None and self.end <= now)
        )

    def as_json(self) -> dict[str, str | None]:
        """For programs."""
        start, end = (None if one is None else one.isoformat() for one in (self.start, self.end))
        return {"part": self.part, "url": self.url, "start": start, "end": end}

    def describe(self, now: datetime) -> str:
        """For people, in a line."""
        state = "in force" if self.in_force(now) else "NOT in force"
        until = f" until {self.end.date().isoformat()}" if self.end else ""
        since = f" since {self.start.date().isoformat()}" if self.start else ""
        return f"{_WORDS[self.part]:<17} {self.url}: {state}{since}{until}"


def entries(root: bytes) -> tuple[RootEntry, ...]:
    """Return the logs and authorities of a trusted root.

    Raises:
        ValueError, KeyError, TypeError: it is no trusted root.
    """
    content = strict_json.read(root)
    return tuple(_entry(part, entry) for part in (*LOGS, *AUTHORITIES) for entry in content.get(part, []))


def in_force(root: bytes, *, begun_by: datetime, now: datetime) -> bytes:
    """Return the trusted root without the authorities and logs that do not count for one bundle.

    Args:
        root: the pinned file.
        begun_by: when the bundle was signed.
        now: the time to judge by.

    Raises:
        ValueError, KeyError, TypeError: it is no trusted root.
    """
    content = strict_json.read(root)
    for part in (*LOGS, *AUTHORITIES):
        content[part] = [one for one in content.get(part, []) if _entry(part, one).in_force(now, begun_by)]
    return json.dumps(content, sort_keys=True).encode()


def _entry(part: str, entry: dict[str, Any]) -> RootEntry:
    period = (entry["publicKey"] if part in LOGS else entry).get("validFor") or {}
    start, end = (datetime.fromisoformat(period[name]) if period.get(name) else None for name in ("start", "end"))
    return RootEntry(part, entry.get("baseUrl" if part in LOGS else "uri", ""), start, end)
