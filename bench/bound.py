"""The lower bound of a release: the parts that no design of this shape can leave out, one after the other, once.

A transactional produce and the read of it by a consumer that reads committed records only; one `GET /v1/constitution`;
one verification (statement, bytes, signatures, rules compiled). No outbox, no relay, no polling, no second process to
be scheduled but the servers themselves.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import httpx
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from adapters.kafka_settings import KafkaSettings
from bench.runs import BenchError
from constitution.names import DEFAULT_RING
from constitution.release import CurrentConstitution
from constitution_follow.verify import verified
from signatures.trust_files import load_trust

TOPIC: Final = "bench.bound"
TIMEOUT_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Bound:
    """Seconds of each part."""

    kafka: float
    fetch: float
    verify: float

    @property
    def seconds(self) -> float:
        """Return their sum."""
        return self.kafka + self.fetch + self.verify


class LowerBound:
    """Measures it against the servers of a running stack; clients are connected before anything is measured.

    Args:
        settings: the stack's settings.
        environment: whose statements are verified.
    """

    def __init__(self, settings: dict[str, str], environment: str) -> None:
        self._url = f"{settings['CONSTITUTION_SERVICE_URL']}/v1/constitution"
        self._environment = environment
        self._trust = load_trust(Path(settings["TRUST_FILE"]))
        given = {name.lower(): value for name, value in settings.items() if name.startswith("KAFKA_")}
        self._kafka: dict[str, str | int | float | bool] = {**KafkaSettings.model_validate(given).kafka_client()}
        self._http = httpx.Client(timeout=TIMEOUT_S, trust_env=False)

    def __enter__(self) -> Self:
        admin = AdminClient(self._kafka)  # kept: a client that is collected takes its pending answers with it
        admin.create_topics([NewTopic(TOPIC, num_partitions=1, replication_factor=1)])[TOPIC].result(TIMEOUT_S)
        self._producer = Producer({**self._kafka, "transactional.id": TOPIC})
        self._producer.init_transactions(TIMEOUT_S)
        self._consumer = Consumer(
            {**self._kafka, "group.id": TOPIC, "isolation.level": "read_committed", "enable.auto.commit": "false"}
        )
        self._consumer.assign([TopicPartition(TOPIC, 0, 0)])
        self.measure()  # the first of each is not what is measured
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()
        del self._producer  # closes it; otherwise it would complain of the broker's end
        self._http.close()

    def measure(self) -> Bound:
        """Do each part once, with the statement that is live as the record.

        Raises:
            BenchError: the record did not come back, or is another one.
        """
        record = self._fetch().statement.model_dump_json().encode()
        began = time.perf_counter()
        self._producer.begin_transaction()
        self._producer.produce(TOPIC, record)
        self._producer.commit_transaction(TIMEOUT_S)
        message = self._consumer.poll(TIMEOUT_S)
        heard = time.perf_counter()
        if message is None or message.value() != record:
            raise BenchError("the record did not come back")
        current = self._fetch()
        fetched = time.perf_counter()
        verified(
            current,
            trust=self._trust,
            environment=self._environment,
            ring=DEFAULT_RING,
            now=datetime.now(UTC),
            known=None,
        )
        return Bound(kafka=heard - began, fetch=fetched - heard, verify=time.perf_counter() - fetched)

    def _fetch(self) -> CurrentConstitution:
        headers = {"Cache-Control": "no-cache", "Accept-Encoding": "identity"}  # as a target asks
        answer = self._http.get(self._url, params={"ring": DEFAULT_RING}, headers=headers)
        return CurrentConstitution.model_validate_json(answer.raise_for_status().content)
