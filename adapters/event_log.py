"""Reads ``constitution.updated`` back from Kafka, independently of its writer (read_committed).

Each call has a consumer of its own that joins no group and commits nothing, in a thread: the driver blocks.
"""

import asyncio
import json
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from confluent_kafka import (
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from constitution.errors import ForbiddenError, UnavailableError, UnsupportedServerError
from constitution.names import Names
from constitution.strict_json import require_simple

TIMEOUT = timedelta(seconds=10)  # of each call to a broker
SCAN = timedelta(seconds=20)  # of reading from ``since`` to the end; the topic holds one small event per release
MAX_FOUND = 64 * 1024 * 1024  # bytes of values kept: of real events, about a hundred thousand
MARGIN = timedelta(minutes=1)  # clocks of service and caller may differ
_PERMANENT = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError._AUTHENTICATION,  # noqa: SLF001 - the driver's public constant
    }
)
_NO_TOKEN = "OAUTHBEARER token"  # noqa: S105 - how librdkafka says that it got none
_REFUSED_CLIENT = re.compile(r"\b(invalid_(client|grant|scope|request)|unauthorized_client|unsupported_grant_type)\b")
"""How a token endpoint says that the client must change (RFC 6749, 5.2)."""


class KafkaEventLog:
    """Implements ``activities.ports.EventLog``.

    Args:
        connection: librdkafka settings of the connection (``bootstrap.servers``, ``sasl.*``…).
        names: of topics and groups.
        timeout: how long a broker may take for each answer.
    """

    def __init__(self, connection: Mapping[str, str], names: Names, *, timeout: timedelta = TIMEOUT) -> None:
        self._connection = dict(connection)
        self._names = names
        self._timeout = timeout.total_seconds()

    async def find_events(self, generation: int, since: datetime) -> list[dict[str, Any]]:
        """Return the committed records of a generation, oldest first, duplicates included.

        Args:
            generation: of the release.
            since: records older than this (less a minute) are not looked at.

        Returns:
            ``{tenant, event_id, partition, offset, checksum, generation, raw}`` each; ``event_id`` is the header
            ``ce_id``, ``raw`` the record's value as text. Records that are no event of ours are passed over: anyone
            who may write to the topic can put them there.

        Raises:
            UnavailableError: Kafka did not answer in time, or holds more such events than releases can have made.
            ForbiddenError: these credentials may not read the topic.
        """
        return await asyncio.to_thread(self._find, lambda found: found == generation, since)

    async def find_newer(self, generation: int, since: datetime) -> list[dict[str, Any]]:
        """Return the committed records of generations above ``generation``, oldest first; else as ``find_events``."""
        return await asyncio.to_thread(self._find, lambda found: found > generation, since)

    async def group_position(self, group: str, partition: int) -> int | None:
        """Return the offset that a group has committed for a partition (the next to be read), or None.

        Args:
            group: its name without the namespace's prefix, e.g. ``siem``.
            partition: of ``constitution.updated``.

        Raises:
            UnavailableError, ForbiddenError: as for ``find_events``.
        """
        return await asyncio.to_thread(self._position, group, partition)

    async def require_usable(self) -> None:
        """Prove that Kafka answers and lets us in.

        Raises:
            UnavailableError: it does not answer in time.
            ForbiddenError: it refuses these credentials.
            UnsupportedServerError: it wants another SASL mechanism than the one that is set.
        """
        await asyncio.to_thread(self._ask)

    def _ask(self) -> None:
        with self._consumer(f"read-back-{uuid.uuid4()}") as consumer:
            consumer.list_topics(self._names.topic_updated(), timeout=self._timeout)

    @contextmanager
    def _consumer(self, group: str, **options: str | bool) -> Iterator[Consumer]:
        """Lend a consumer that joins no group; a failed call is reported in the driver's words about the connection."""
        refused: list[KafkaError] = []
        consumer = Consumer(
            {
                **self._connection,
                "group.id": self._names.group(group),  # required by the driver, never joined
                "enable.auto.commit": False,
                "allow.auto.create.topics": False,
                "log_level": 0,
                "error_cb": lambda error: refused.append(error) if error.code() in _PERMANENT else None,
                **options,
            }
        )
        try:
            yield consumer
        except KafkaException as error:
            consumer.poll(0)  # calls error_cb; the call itself has only timed out
            raise _translated((refused or [error.args[0]])[0], self._connection.get("sasl.mechanism")) from error
        finally:
            consumer.close()

    def _find(self, wanted: Callable[[int], bool], since: datetime) -> list[dict[str, Any]]:
        options: dict[str, str | bool] = {
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
        with self._consumer(f"read-back-{uuid.uuid4()}", **options) as consumer:
            return self._scan(consumer, wanted, since)

    def _scan(self, consumer: Consumer, wanted: Callable[[int], bool], since: datetime) -> list[dict[str, Any]]:
        topic = self._names.topic_updated()
        places = self._places(consumer, topic, since)
        if not places:
            return []
        consumer.assign(places)
        found: list[dict[str, Any]] = []
        kept = 0
        open_partitions = {place.partition for place in places}
        deadline = time.monotonic() + SCAN.total_seconds()
        while open_partitions:
            message = consumer.poll(1.0)
            if time.monotonic() > deadline:
                raise UnavailableError(f"Kafka did not give all of {topic} within {SCAN.total_seconds():g} s")
            if message is None:
                continue
            error = message.error()
            if error is None:
                event = _event(message, wanted)
                if event is not None:
                    kept += len(event["raw"])
                    if kept > MAX_FOUND:
                        raise UnavailableError(
                            f"{topic} holds more than {MAX_FOUND} bytes of events of the generations asked for",
                            hint="somebody writes what is no release: look at the topic, and at who may write to it",
                        )
                    found.append(event)
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - the driver's public constant
                open_partitions.discard(message.partition())
            else:
                raise _translated(error)
        return sorted(found, key=lambda event: (event["partition"], event["offset"]))

    def _places(self, consumer: Consumer, topic: str, since: datetime) -> list[TopicPartition]:
        """Return where to begin in each partition that holds anything new; none before anybody has published.

        An error is no answer: taken for an empty topic, it would hide delivered events.
        """
        metadata = consumer.list_topics(topic, timeout=self._timeout).topics.get(topic)
        if metadata is None or (metadata.error and metadata.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART):
            return []
        start = int((since - MARGIN).timestamp() * 1000)
        moments = [TopicPartition(topic, partition, start) for partition in metadata.partitions]
        answered = consumer.offsets_for_times(moments, timeout=self._timeout) if moments else []
        for part in (metadata, *metadata.partitions.values(), *answered):
            if part.error is not None:
                raise _translated(part.error)
        return [place for place in answered if place.offset != OFFSET_END]

    def _position(self, group: str, partition: int) -> int | None:
        """Ask as a member that never joins, not by the Admin API.

        Its requests to a group's coordinator abort the whole process when the connection drops at the wrong moment
        (librdkafka issue 4605: ``Assertion `eonce->refcnt > 0' failed``), which is just when this is asked again.
        """
        with self._consumer(group) as consumer:
            wanted = TopicPartition(self._names.topic_updated(), partition)
            (found,) = consumer.committed([wanted], timeout=self._timeout)
        if found.error is not None:
            raise _translated(found.error)
        return int(found.offset) if found.offset >= 0 else None


def _event(message: Message, wanted: Callable[[int], bool]) -> dict[str, Any] | None:
    headers: dict[str, Any] = {str(name): value for name, value in _headers(message)}
    value = message.value()
    identity = headers.get("ce_id")
    if not isinstance(value, bytes) or not isinstance(identity, bytes):
        return None
    try:
        require_simple(value)
        body = json.loads(value)
        event_id = identity.decode()
        raw = value.decode()
    except (ValueError, RecursionError):
        return None
    if not isinstance(body, dict) or body.get("tenant") is None:
        return None
    generation = body.get("generation")
    if not isinstance(generation, int) or not wanted(generation):
        return None
    return {
        "tenant": str(body["tenant"]),
        "event_id": event_id,
        "partition": message.partition(),
        "offset": message.offset(),
        "checksum": body.get("checksum"),
        "generation": generation,
        "raw": raw,
    }


def _headers(message: Message) -> list[tuple[str, Any]]:
    headers = message.headers() or []
    return list(headers.items()) if isinstance(headers, dict) else list(headers)


def _translated(error: KafkaError, mechanism: str | None = None) -> Exception:
    if error.code() in _PERMANENT and _NO_TOKEN in error.str():
        return _no_token(error.str())
    # Of a wrong password the driver says "invalid credentials with SASL mechanism …".
    if error.code() in _PERMANENT and "mechanism" in error.str() and "credentials" not in error.str():
        return UnsupportedServerError(
            f"Kafka does not take the SASL mechanism {mechanism}: {error.str()[:300]}",
            hint="KAFKA_SASL_MECHANISM is PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER",
        )
    if error.code() in _PERMANENT:
        return ForbiddenError(
            f"Kafka refuses these credentials: {error.str()}", hint="check KAFKA_USERNAME and its ACLs"
        )
    hint = "KAFKA_BOOTSTRAP_SERVERS says where it is looked for"
    if mechanism == "OAUTHBEARER":  # an endpoint in trouble is asked for longer than we wait, and not told of
        hint += ", KAFKA_TOKEN_URL where its token is got"
    return UnavailableError(f"Kafka: {error.str()}", hint=hint)


def _no_token(said: str) -> Exception:
    """Tell a refused client from an endpoint in trouble: the driver gives both one code, and repeats the answer."""
    hint = "check KAFKA_TOKEN_URL; KAFKA_USERNAME and KAFKA_PASSWORD are the client's id and secret there"
    if _REFUSED_CLIENT.search(said):
        return ForbiddenError(f"the token endpoint refuses these credentials: {said[:300]}", hint=hint)
    return UnavailableError(f"Kafka: {said[:300]}", hint=hint)
