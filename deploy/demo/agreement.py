"""Reads the checksum that each system holds, by that system's own driver, and says whether they agree.

It shares no code with the activities that put the checksums there: it finds the same as an auditor would.
"""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import asyncpg
import httpx
import redis.asyncio
from confluent_kafka import Consumer, TopicPartition
from dulwich.objects import Commit
from dulwich.repo import Repo
from slack_sdk import WebClient

from constitution.environment import Environment
from constitution.names import Names

TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True)
class Reading:
    """What one system says. ``checksum`` is null where the system holds none by nature."""

    system: str
    checksum: str | None
    generation: int | None
    detail: str
    agrees: bool = True


@dataclass(frozen=True, slots=True)
class Agreement:
    """All readings, and whether they are one and the same."""

    readings: tuple[Reading, ...]

    @property
    def agrees(self) -> bool:
        """Whether every system that holds a checksum or generation holds the same one, and every check passed."""
        checksums = {reading.checksum for reading in self.readings if reading.checksum is not None}
        generations = {reading.generation for reading in self.readings if reading.generation is not None}
        return len(checksums) == 1 and len(generations) == 1 and all(reading.agrees for reading in self.readings)

    def as_json(self) -> dict[str, Any]:
        """Return the readings for the report."""
        return {
            "agrees": self.agrees,
            "readings": [
                {"system": r.system, "checksum": r.checksum, "generation": r.generation, "detail": r.detail}
                for r in self.readings
            ],
        }


async def read(settings: dict[str, str], environment: Environment, *, outcomes: int) -> Agreement:
    """Read every system.

    Args:
        settings: the stack's settings.
        environment: whose targets are asked.
        outcomes: how many outcomes the channel must have been told, each once.
    """
    names = Names(settings.get("NAMESPACE", ""))
    readings = [await _postgres(settings, environment), await _redis(settings, names)]
    event, kafka = await asyncio.to_thread(_kafka, settings, names)
    readings.append(kafka)
    async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as client:
        for target in environment.targets:
            policy = (await client.get(f"{target.url}/v1/policy")).raise_for_status().json()
            readings.append(
                Reading(target.id, policy["checksum"], policy["generation"], f"{target.kind}, {policy['version']}")
            )
    readings.append(await asyncio.to_thread(_archive, Path(settings["ARCHIVE_REPOSITORY"]), event))
    readings.append(await asyncio.to_thread(_siem, settings, names, event))
    readings.append(await asyncio.to_thread(_slack, settings, environment.channel, outcomes))
    return Agreement(tuple(readings))


async def _postgres(settings: dict[str, str], environment: Environment) -> Reading:
    connection = await asyncpg.connect(settings["DATABASE_READER_URL"], timeout=TIMEOUT_S)
    try:
        row = await connection.fetchrow(
            "SELECT generation, checksum, version, kind"
            " FROM current_releases JOIN releases USING (environment, generation)"
            " WHERE environment = $1 AND ring = 'default'",
            environment.environment,
        )
    finally:
        await connection.close()
    if row is None:
        return Reading("Postgres", None, None, "no current release", agrees=False)
    return Reading("Postgres", row["checksum"], row["generation"], f"current release: {row['kind']} {row['version']}")


async def _redis(settings: dict[str, str], names: Names) -> Reading:
    async with redis.asyncio.from_url(settings["REDIS_URL"], socket_timeout=TIMEOUT_S) as client:
        value = await client.get(names.redis_current())
    if value is None:
        return Reading("Redis", None, None, f"{names.redis_current()} is missing", agrees=False)
    current = json.loads(value)
    return Reading("Redis", current["checksum"], current["generation"], names.redis_current())


def _kafka_settings(settings: dict[str, str]) -> dict[str, str | int | float | bool]:
    given: dict[str, str | int | float | bool] = {"bootstrap.servers": settings["KAFKA_BOOTSTRAP_SERVERS"]}
    if settings.get("KAFKA_USERNAME"):
        given |= {
            "security.protocol": settings.get("KAFKA_SECURITY_PROTOCOL") or "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.username": settings["KAFKA_USERNAME"],
            "sasl.password": settings["KAFKA_PASSWORD"],
        }
    return given


def _kafka(settings: dict[str, str], names: Names) -> tuple[dict[str, Any], Reading]:
    """Read the topic from its beginning; return the last event, and what it says."""
    topic = names.topic_updated()
    consumer = Consumer(
        {
            **_kafka_settings(settings),
            "group.id": names.group("demo-auditor"),
            "enable.auto.commit": "false",
            "isolation.level": "read_committed",
            "enable.partition.eof": "true",
        }
    )
    last: dict[str, Any] | None = None
    seen: dict[int, set[str]] = {}
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        while (message := consumer.poll(TIMEOUT_S)) is not None and message.error() is None:
            value = json.loads(message.value() or b"{}")
            headers = {pair[0]: pair[1].decode() for pair in cast("list[tuple[str, bytes]]", message.headers() or [])}
            seen.setdefault(value["generation"], set()).add(headers["ce_id"])
            last = {**value, "offset": message.offset(), "partition": message.partition()}
    finally:
        consumer.close()
    if last is None:
        return {}, Reading("Kafka", None, None, f"{topic} is empty", agrees=False)
    complete = sorted(seen) == list(range(1, last["generation"] + 1)) and all(len(ids) == 1 for ids in seen.values())
    detail = f"{topic}: {len(seen)} generations, one event each, last at offset {last['offset']}"
    return last, Reading("Kafka", last["checksum"], last["generation"], detail, agrees=complete)


def _archive(repository: Path, event: dict[str, Any]) -> Reading:
    """Read the manifest of the live release from the newest commit."""
    with Repo(str(repository)) as repo:
        head = repo.head()
        folder = f"docs/legal/constitution/{event['version']}-{event['generation']}"
        commit = repo[head]
        if not isinstance(commit, Commit):
            return Reading("archive", None, None, "HEAD is no commit", agrees=False)
        tree = repo.object_store.iter_tree_contents(commit.tree)
        entries = {entry.path.decode(): entry.sha for entry in tree if entry.path}
        raw = repo[entries[f"{folder}/manifest.json"]].as_raw_string()
    manifest = json.loads(raw)
    checksum = manifest["files"]["document.json"]
    where = f"{folder}/manifest.json at commit {head.decode()[:12]}"
    return Reading("archive", checksum, None, where)


def _siem(settings: dict[str, str], names: Names, event: dict[str, Any]) -> Reading:
    """Read how far the SIEM's group has come."""
    group = names.group("siem")
    wanted = TopicPartition(names.topic_updated(), event["partition"])
    consumer = Consumer(_kafka_settings(settings) | {"group.id": group, "enable.auto.commit": False})  # it never joins
    try:
        position = consumer.committed([wanted], timeout=TIMEOUT_S)[0].offset
    finally:
        consumer.close()
    detail = f"group {group} at offset {position}, past the event's {event['offset']}"
    return Reading("SIEM", None, None, detail, agrees=position > event["offset"])


def _slack(settings: dict[str, str], channel: str, outcomes: int) -> Reading:
    """Count the outcomes announced in the channel (the embedded server is an emulator of Slack's API, and says so)."""
    token = settings.get("SLACK_READER_TOKEN", settings["SLACK_BOT_TOKEN"])  # a workspace may have the bot's only
    client = WebClient(token=token, base_url=settings["SLACK_API_URL"])
    name = channel.removeprefix("#")
    ids = [c["id"] for page in client.conversations_list(limit=200) for c in page["channels"] if c["name"] == name]
    told: dict[str, set[str]] = {}  # outcome -> messages; a progress message is none
    for page in client.conversations_history(channel=ids[0], include_all_metadata=True, limit=200):
        for message in page["messages"]:
            thread = [message]
            if message.get("reply_count"):
                replies = client.conversations_replies(channel=ids[0], ts=message["ts"], include_all_metadata=True)
                thread += list(replies["messages"])
            for reply in thread:
                key = (reply.get("metadata") or {}).get("event_payload", {}).get("key", "/progress")
                if not key.endswith("/progress"):
                    told.setdefault(key, set()).add(reply["ts"])
    once = len(told) == outcomes and all(len(messages) == 1 for messages in told.values())
    return Reading("Slack", None, None, f"{len(told)} outcomes announced in {channel}, each once", agrees=once)
