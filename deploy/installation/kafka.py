"""Kafka: does it answer, and are the topics kept as the releases' records must be?

Kafka's protocol tells no version of the broker. Nothing is written: the broker lists what these credentials may do.
"""

import asyncio
import logging
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined] # it exports them, but by no __all__
    AclOperation,
    AdminClient,
    ConfigResource,
    ResourceType,
    TopicDescription,
)

from adapters.kafka_producer import TOPIC_SETTINGS
from adapters.kafka_settings import KafkaSettings
from constitution.names import Names
from deploy.installation.check import Check, cannot_tell, missing, not_set, ok

PLACE = "KAFKA_BOOTSTRAP_SERVERS"
TIMEOUT = timedelta(seconds=10)
LARGEST = 1_000_000  # bytes of one record: message.max.bytes of our producer
_SERVER = '--bootstrap-server "$KAFKA_BOOTSTRAP_SERVERS"'


async def kafka(settings: KafkaSettings | None, names: Names) -> list[Check]:
    """Look at the brokers and at both topics."""
    if settings is None:
        return [not_set(PLACE, "every service")]
    return await asyncio.to_thread(lambda: list(_look(settings, names)))


def _look(settings: KafkaSettings, names: Names) -> Iterator[Check]:
    client: dict[str, Any] = {**settings.kafka_client(), "socket.timeout.ms": 5000, "log_level": 0}
    admin = AdminClient(client, logger=logging.getLogger("librdkafka"))
    reach = f"kafka-topics.sh {_SERVER} --list"
    try:
        cluster = admin.list_topics(timeout=TIMEOUT.total_seconds())
    except KafkaException as error:
        yield missing(PLACE, "answers", f"Kafka does not answer, or does not let us in: {_reason(error)}", reach)
        return
    yield ok(PLACE, "answers", f"{len(cluster.brokers)} brokers; its protocol tells no version")
    topics = (names.topic_updated(), names.topic_audit())
    described = admin.describe_topics(
        TopicCollection(list(topics)),
        include_authorized_operations=True,
        request_timeout=TIMEOUT.total_seconds(),
    )
    for topic in topics:
        place = f"topic {topic}"
        if topic not in cluster.topics:
            detail = "there is none; constitution-service makes it at its start, if it may"
            yield missing(place, "exists", detail, _create(topic))
            continue
        try:
            description = described[topic].result(TIMEOUT.total_seconds())
        except (KafkaException, TimeoutError) as error:
            yield cannot_tell(place, "exists", f"it cannot be described: {_reason(error)}", reach)
            continue
        yield from _kept(admin, topic, description)
        yield _rights(topic, description)


def _kept(admin: AdminClient, topic: str, description: TopicDescription) -> Iterator[Check]:
    place = f"topic {topic}"
    resource = ConfigResource(ResourceType.TOPIC, topic)
    try:
        found = admin.describe_configs([resource])[resource].result(TIMEOUT.total_seconds())
    except (KafkaException, TimeoutError) as error:
        command = f"kafka-configs.sh {_SERVER} --describe --entity-type topics --entity-name {topic} --all"
        yield cannot_tell(place, "settings", f"these credentials may not read them: {_reason(error)}", command)
        return
    values = {name: entry.value for name, entry in found.items()}
    replicas = min((len(part.replicas) for part in description.partitions), default=0)
    wrong = [
        f"{name} is {values.get(name)} and must be {wanted}"
        for name, wanted in TOPIC_SETTINGS.items()
        if values.get(name) != wanted
    ]
    repair: Mapping[str, str] = TOPIC_SETTINGS
    if int(values.get("max.message.bytes") or LARGEST) < LARGEST:
        wrong.append(f"max.message.bytes is {values['max.message.bytes']} and must be {LARGEST} at least")
        repair = {**repair, "max.message.bytes": str(LARGEST)}
    if int(values.get("min.insync.replicas") or 1) > replicas:
        wrong.append(
            f"min.insync.replicas is {values['min.insync.replicas']}, with {replicas} replicas: none can write"
        )
        repair = {**repair, "min.insync.replicas": str(max(1, replicas - 1))}
    if wrong:
        given = ",".join(f"{name}={value}" for name, value in repair.items())
        command = f"kafka-configs.sh {_SERVER} --alter --entity-type topics --entity-name {topic} --add-config {given}"
        yield missing(place, "settings", "; ".join(wrong), command)
    else:
        yield ok(place, "settings", f"kept for ever, not compacted; {replicas} replicas")
    if len(description.partitions) != 1:
        detail = f"{len(description.partitions)} partitions, where no order holds between two; ours are made with one"
        command = (
            f"kafka-topics.sh {_SERVER} --describe --topic {topic}  # partitions cannot be taken away: make it anew"
        )
        yield missing(place, "partitions", detail, command)


def _rights(topic: str, description: TopicDescription) -> Check:
    place = f"topic {topic}"
    allowed = description.authorized_operations
    if not allowed:
        command = f"kafka-acls.sh {_SERVER} --list --topic {topic}"
        return cannot_tell(place, "rights", "the broker does not say what these credentials may do", command)
    if AclOperation.READ not in allowed:
        command = f"kafka-acls.sh {_SERVER} --add --allow-principal User:… --operation Read --topic {topic}"
        return missing(place, "rights", "these credentials may not read it", command)
    if AclOperation.WRITE not in allowed:
        command = f"kafka-acls.sh {_SERVER} --add --allow-principal User:… --operation Write --topic {topic}"
        detail = "these credentials may read it and not write: right for all but constitution-service"
        return cannot_tell(place, "rights", detail, command)
    return ok(place, "rights", "these credentials may read and write")


def _create(topic: str) -> str:
    settings = " ".join(f"--config {name}={value}" for name, value in TOPIC_SETTINGS.items())
    return f"kafka-topics.sh {_SERVER} --create --topic {topic} --partitions 1 {settings}"


def _reason(error: BaseException) -> str:
    detail = error.args[0] if error.args else error
    return str(detail.str() if hasattr(detail, "str") else detail)[:200]
