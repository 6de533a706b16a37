"""Reads what the systems around a run hold, each by its own driver; shares no code with the activities."""

import asyncio
import html
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import redis.asyncio
from confluent_kafka import Consumer, TopicPartition
from dulwich.repo import Repo
from slack_sdk import WebClient

from constitution.environment import Environment
from constitution.names import Names
from deploy.embedded.kafka import client_configuration
from deploy.embedded.loopback import loopback
from deploy.embedded.slack import reader_token

Live = tuple[int, str | None]
"""Generation and checksum; (0, None) before the first release."""


@dataclass(frozen=True)
class Record:
    """One record of a topic."""

    key: str
    headers: dict[str, str]
    value: dict[str, Any]
    offset: int


def read_topic(configuration: Mapping[str, Any], topic: str) -> list[Record]:
    """Read a topic from its first record on, committed records only."""
    consumer = Consumer(
        {
            **configuration,
            "group.id": "nobody",  # it is assigned, and commits nothing
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
        }
    )
    try:
        if topic not in consumer.list_topics(timeout=10).topics:
            return []
        consumer.assign([TopicPartition(topic, 0, 0)])
        found: list[Record] = []
        while True:
            message: Any = consumer.poll(10)
            assert message is not None, f"{topic} does not answer"
            if message.error() is not None:
                return found
            headers = {name: data.decode() for name, data in message.headers() or []}
            found.append(
                Record((message.key() or b"").decode(), headers, json.loads(message.value()), message.offset())
            )
    finally:
        consumer.close()


class Topics:
    """What is on Kafka, in one namespace.

    Args:
        configuration: librdkafka's.
        names: its names in shared systems.
    """

    def __init__(self, configuration: Mapping[str, Any], names: Names) -> None:
        self._configuration = configuration
        self._names = names

    async def updated(self) -> list[Record]:
        return await asyncio.to_thread(read_topic, self._configuration, self._names.topic_updated())

    async def audit(self) -> list[Record]:
        return await asyncio.to_thread(read_topic, self._configuration, self._names.topic_audit())


class Readings:
    """The systems of one environment.

    Args:
        settings: its settings.
        names: its names in shared systems.
    """

    def __init__(self, settings: dict[str, str], names: Names) -> None:
        self._settings = settings
        self._names = names
        self._kafka = client_configuration({k: v for k, v in settings.items() if k.startswith("KAFKA_")})
        environment = Path(settings["ENVIRONMENT_FILE"])
        self._siem = environment.parent.parent / "siem" / "events.ndjson"
        self._channel = Environment.parse(environment.read_text()).channel.removeprefix("#")
        token = reader_token(settings["SLACK_READER_TOKEN"], self._channel)
        self._slack = WebClient(token, base_url=settings["SLACK_API_URL"])
        self._channel_id: str | None = None

    async def live(self, environment: Environment) -> dict[str, Live]:
        """What Postgres, Redis and every target say is live."""
        said = {"Postgres": await self.postgres(environment.environment), "Redis": await self.redis()}
        async with loopback(10) as client:
            answers = await asyncio.gather(*(client.get(f"{t.url}/v1/policy") for t in environment.targets))
        for target, answer in zip(environment.targets, answers, strict=True):
            policy = answer.raise_for_status().json()
            said[target.id] = (policy["generation"], policy["checksum"])
        return said

    async def postgres(self, environment: str) -> Live:
        """The current release of ring `default`."""
        connection = await asyncpg.connect(self._settings["DATABASE_READER_URL"], timeout=10)
        try:
            row = await connection.fetchrow(
                "SELECT generation, checksum FROM current_releases JOIN releases USING (environment, generation)"
                " WHERE environment = $1 AND ring = 'default'",
                environment,
            )
        finally:
            await connection.close()
        return (row["generation"], row["checksum"]) if row else (0, None)

    async def redis(self) -> Live:
        """The cached release of ring `default`."""
        async with redis.asyncio.from_url(self._settings["REDIS_URL"], socket_timeout=10) as client:
            value = await client.get(self._names.redis_current())
        if value is None:
            return (0, None)
        said = json.loads(value)
        return said["generation"], said["checksum"]

    def events(self) -> dict[tuple[int, str], set[str]]:
        """Event ids on `constitution.updated` by generation and tenant."""
        found: dict[tuple[int, str], set[str]] = {}
        for record in self.updated():
            found.setdefault((record.value["generation"], record.value["tenant"]), set()).add(record.headers["ce_id"])
        return found

    def updated(self) -> list[Record]:
        """Every record on `constitution.updated`, oldest first."""
        return read_topic(self._kafka, self._names.topic_updated())

    def audit(self) -> list[dict[str, Any]]:
        """Every audit event, oldest first (OCSF)."""
        return [record.value for record in read_topic(self._kafka, self._names.topic_audit())]

    def audited(self, workflow_id: str) -> list[str]:
        """The operations that were audited for one workflow id, oldest first, each event id once."""
        found: dict[str, str] = {}
        for event in self.audit():
            if event["unmapped"].get("workflow", {}).get("workflow_id") == workflow_id:
                found.setdefault(event["metadata"]["uid"], event["api"]["operation"])
        return list(found.values())

    def told(self) -> dict[str, set[str]]:
        """Outcomes told in the channel: key -> text of each message that tells it."""
        if self._channel_id is None:
            channels = [c for page in self._slack.conversations_list(limit=200) for c in page["channels"]]
            self._channel_id = str(next(c["id"] for c in channels if c["name"] == self._channel))
        channel = self._channel_id
        found: dict[str, dict[str, str]] = {}
        pages = self._slack.conversations_history(channel=channel, include_all_metadata=True, limit=200)
        for message in (message for page in pages for message in page["messages"]):
            thread = [message]
            if message.get("reply_count"):
                thread += self._slack.conversations_replies(
                    channel=channel, ts=message["ts"], include_all_metadata=True
                )["messages"]
            for said in thread:
                if said.get("metadata", {}).get("event_type") == "constitution_outcome":
                    found.setdefault(said["metadata"]["event_payload"]["key"], {})[said["ts"]] = (
                        said["text"] + " " + json.dumps(said.get("blocks") or [])
                    )
        return {key: {f"{ts} {text}" for ts, text in messages.items()} for key, messages in found.items()}

    def told_about(self, *words: str) -> list[str]:
        """Texts of outcomes (no progress messages) that hold all of these words."""
        texts = [text for key, messages in self.told().items() if not key.endswith("/progress") for text in messages]
        return [text for text in texts if all(word in text for word in words)]

    def texts(self, workflow_id: str) -> list[str]:
        """Texts of the outcomes that were told of one workflow id; the block with the workflow's id names it."""
        return [text for messages in self.told().values() for text in messages if workflow_id in text]

    def change_log_rows(self) -> list[list[str]]:
        """The cells of each row of the archive's change log, without the comment that names it."""
        text = self.archived_file("docs/SomaAgentHub_Security.md").decode()
        rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("|") and "<!--" in line]
        return [[html.unescape(cell.partition("<!--")[0]).strip() for cell in row] for row in rows]

    def change_log(self, generation: int) -> list[str]:
        """The rows of the archive's change log about one generation."""
        return [" | ".join(row) for row in self.change_log_rows() if row[1] == str(generation)]

    def archived_file(self, path: str) -> bytes:
        """The bytes of a file of the archive; empty if there is none."""
        with Repo(self._settings["ARCHIVE_REPOSITORY"]) as repo:
            found = _files(repo).get(path)
            return bytes(repo[found].as_raw_string()) if found else b""

    def archived_folder(self, name: str) -> dict[str, bytes]:
        """Every file of a release's folder of the archive, by its path there."""
        prefix = f"docs/legal/constitution/{name}/"
        with Repo(self._settings["ARCHIVE_REPOSITORY"]) as repo:
            files = {path: found for path, found in _files(repo).items() if path.startswith(prefix)}
            return {path.removeprefix(prefix): bytes(repo[found].as_raw_string()) for path, found in files.items()}

    def siem(self) -> list[dict[str, Any]]:
        """Every event that the SIEM has received, in whole lines."""
        lines = self._siem.read_bytes().split(b"\n")[:-1] if self._siem.exists() else []
        return [json.loads(line) for line in lines]

    def archived(self) -> list[str]:
        """Every file of the archive."""
        with Repo(self._settings["ARCHIVE_REPOSITORY"]) as repo:
            return sorted(_files(repo))


def _files(repo: Repo) -> dict[str, Any]:
    """Path and object of each file; none before the first commit."""
    try:
        tree = repo[repo.head()].tree  # type: ignore[attr-defined]
    except KeyError:
        return {}
    return {entry.path.decode(): entry.sha for entry in repo.object_store.iter_tree_contents(tree) if entry.path}
