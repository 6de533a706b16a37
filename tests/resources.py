"""What the fixtures of conftest.py hand to tests."""

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, kw_only=True)
class Database:
    """One test's own database, with all migrations applied.

    Args:
        url: As the service's role (DATABASE_URL).
        reader_url: As the read-only role (DATABASE_READER_URL).
        owner_url: As the owner, who migrates (DATABASE_MIGRATION_URL).
    """

    url: str
    reader_url: str
    owner_url: str

    @classmethod
    def of(cls, addresses: Mapping[str, str]) -> Self:
        """The database that these settings lead to."""
        return cls(
            url=addresses["DATABASE_URL"],
            reader_url=addresses["DATABASE_READER_URL"],
            owner_url=addresses["DATABASE_MIGRATION_URL"],
        )


class Prometheus:
    """The server's address, and a way to have it scrape something.

    Args:
        url: PROMETHEUS_URL.
        targets: Directory of the target files that it follows.
    """

    def __init__(self, url: str, targets: Path) -> None:
        self.url = url
        self._targets = targets
        self._files: list[Path] = []

    def scrape(self, address: str, *, job: str, **labels: str) -> None:
        """Scrape http://`address`/metrics once a second from now on, until the test ends."""
        file = self._targets / f"{secrets.token_hex(6)}.json"
        entry = {"targets": [address], "labels": {"job": job, **labels}}
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps([entry]))
        partial.replace(file)
        self._files.append(file)

    def forget(self) -> None:
        """Stop scraping all of this test's targets."""
        for file in self._files:
            file.unlink()


@dataclass(frozen=True, kw_only=True)
class Slack:
    """Slack's API, emulated.

    Args:
        token: SLACK_BOT_TOKEN.
        api_url: SLACK_API_URL.
        channel: Id of a channel of this test's own.
        channel_name: Its name, without `#`.
    """

    token: str
    api_url: str
    channel: str
    channel_name: str
