"""``python -m deploy.audit_topic``: each record of the audit stream as a line, for ``constitution audit verify``.

An empty line says that the topic's end was reached; after it come records that are sent meanwhile, for a few seconds.
Exit 0: all was read. 2: a setting is wrong. 3: Kafka does not answer.
"""

import os
import sys
import time
from datetime import timedelta

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from adapters.kafka_settings import KafkaSettings
from adapters.process_settings import read_settings
from constitution.errors import ConstitutionError
from constitution.names import Names
from constitution_client.exit_codes import ExitCode

TIMEOUT = timedelta(seconds=10)  # of each answer of a broker
AFTER_END = timedelta(seconds=5)  # what the service has signed is on the topic within this, unless Kafka is down


def read(settings: KafkaSettings, topic: str) -> None:
    """Write every committed record to stdout.

    Raises:
        KafkaException: the brokers did not answer.
    """
    consumer = Consumer(
        {
            **settings.kafka_client(),
            "group.id": "audit-verify",  # required by the driver, never joined
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "allow.auto.create.topics": False,
            "isolation.level": "read_committed",
            "log_level": 0,
        }
    )
    try:
        found = consumer.list_topics(topic, timeout=TIMEOUT.total_seconds()).topics[topic]
        if found.error is not None and found.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            sys.stdout.buffer.write(b"\n")  # it was deleted, or nothing was ever audited: no record is there
            return
        if found.error is not None:
            raise KafkaException(found.error)
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in found.partitions])
        _copy(consumer, set(found.partitions))
    finally:
        consumer.close()


def _copy(consumer: Consumer, unread: set[int]) -> None:
    out = sys.stdout.buffer
    answered = time.monotonic()
    ends: float | None = None
    while ends is None or time.monotonic() < ends:
        message = consumer.poll(0.5)
        if message is None:
            if ends is None and time.monotonic() - answered > TIMEOUT.total_seconds():
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))  # noqa: SLF001 - librdkafka names it so
            continue
        answered = time.monotonic()
        error = message.error()
        if error is None:
            out.write((message.value() or b"").replace(b"\n", b" ") + b"\n")
        elif error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - the same
            raise KafkaException(error)
        else:
            unread.discard(message.partition() or 0)
            if not unread and ends is None:
                ends = time.monotonic() + AFTER_END.total_seconds()
                out.write(b"\n")
        if ends is not None:
            out.flush()


def main() -> int:
    """Return the exit code."""
    try:
        read(read_settings(KafkaSettings), Names(os.environ.get("NAMESPACE", "")).topic_audit())
    except KafkaException as error:
        print(f"Kafka: {error.args[0].str()[:300]}", file=sys.stderr)
        return ExitCode.UNAVAILABLE
    except (ConstitutionError, ValueError) as error:
        print(error, file=sys.stderr)
        return ExitCode.USAGE
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
