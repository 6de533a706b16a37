"""What is left of a producer whose broker died in the middle of a transaction."""

import gc
import os
import signal
from datetime import timedelta
from pathlib import Path

import pytest
from confluent_kafka import Producer

from adapters.kafka_producer import FencedProducer, ProducedMessage, ProducerFencedError, ensure_topics
from deploy.embedded.kafka import client_configuration
from deploy.embedded.stack import Stack
from tests.helpers import eventually

RECORD = ProducedMessage("topic", b"key", b"value", ())


def alive() -> int:
    """Producers of this process that no collector will free, each with its threads and sockets."""
    gc.collect()
    return sum(isinstance(thing, Producer) for thing in gc.get_objects())


@pytest.mark.slow
async def test_a_producer_whose_broker_died_is_gone_with_its_threads(tmp_path: Path) -> None:
    before = alive()
    with Stack(tmp_path / "var", ("kafka",), environment={}) as stack:
        kafka = {name: str(value) for name, value in client_configuration(stack.settings()).items()}
        await ensure_topics(kafka, [RECORD.topic])
        record, commit = timedelta(seconds=2), timedelta(seconds=5)  # so the record fails first, and the abort is tried
        producer = FencedProducer(kafka, "sender", record_timeout=record, commit_timeout=commit)
        await producer.open()
        await producer.send([RECORD])
        assert alive() == before + 1
        (broker,) = (status.pid for status in stack.status() if status.name == "kafka")
        assert broker is not None
        os.kill(broker, signal.SIGKILL)
        with pytest.raises(ProducerFencedError, match="could not be aborted"):
            await producer.send([RECORD])
        producer.close()
        del producer
        await eventually(lambda: alive() == before)
