"""A whole small environment for consumers' tests: constitution-service as a process on real servers, and its people.

Releases are made the way they are made for real: pushed, asked for, tested, approved by two board members, loaded under
the lease. The tests that a release needs are run here, by the domain itself: golden vectors, and damaged copies that
must be refused.
"""

import contextlib
import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from constitution.api import (
    ChangeRequest,
    EvidenceRecord,
    LeaseRelease,
    LeaseRequest,
    LoadRequest,
    LoadResult,
    WorkflowRef,
)
from constitution.checksum import checksum_of
from constitution.environment import Strategy
from constitution.errors import ConstitutionError
from constitution.names import Names
from constitution.policy.document import parse
from constitution.policy.golden import Vector
from constitution.policy.rules import Policy
from constitution.release import Kind
from constitution.trust.approval import ApprovalPredicate, BoardDecision
from constitution.trust.attestation import GatePredicate
from constitution.trust.plan import Plan
from constitution_client.service import ConstitutionServiceClient
from signatures.attestations import sign_attestation
from signatures.openpgp import sign_detached
from signatures.statements import sign_approval, sign_change_request
from tests.consumers_support import ENVIRONMENT, Land, Service
from tests.junit import junit_of
from tests.resources import Database

NOON = "2026-11-22T12:00:00Z"
MIDNIGHT = "2026-11-22T00:30:00Z"

VECTORS = tuple(
    Vector.model_validate(vector)
    for vector in (
        {"name": "reading", "request": {"tenant": "global", "action": "read", "time": NOON}, "decision": "allow"},
        {
            "name": "secrets",
            "request": {"tenant": "global", "action": "read", "data_class": "secret", "time": NOON},
            "decision": "deny",
            "rule": "no-secrets",
        },
        {
            "name": "large",
            "request": {"tenant": "global", "action": "read", "amount": 5000, "time": NOON},
            "decision": "require_approval",
            "rule": "large-sums",
        },
        {
            "name": "night",
            "request": {"tenant": "acme", "action": "read", "time": MIDNIGHT},
            "decision": "deny",
            "rule": "acme-at-night",
        },
        {
            "name": "error in a deny rule",
            "request": {"tenant": "acme", "action": "divide", "time": NOON},
            "decision": "deny",
            "rule": "fragile",
        },
        {"name": "default", "request": {"tenant": "x", "time": NOON}, "decision": "deny", "reason": "default"},
    )
)
"""What documents with the rules of ``consumers_support.RULES`` must decide."""


@dataclass
class Town:
    """A running constitution-service, and what it takes to release something."""

    land: Land
    service: Service
    namespace: str
    kafka: dict[str, str]

    def settings(self, target: str, **more: str) -> dict[str, str]:
        """Settings of a consumer."""
        return {
            "TARGET_ID": target,
            "NAMESPACE": self.namespace,
            "ENVIRONMENT_FILE": str(self.land.environment_file),
            "CONSTITUTION_SERVICE_URL": self.service.url,
            **self.kafka,
            **more,
        }

    def client(self, name: str = "worker") -> ConstitutionServiceClient:
        return ConstitutionServiceClient(self.service.url, self.land.key(name), ENVIRONMENT)

    async def release(self, text: bytes, vectors: Sequence[Vector] = ()) -> LoadResult:
        """Bring a document live as an update."""
        parsed = parse(text)
        update_id, request_id = str(uuid4()), f"CR-{uuid4().hex[:8]}"
        checksum = checksum_of(text)
        async with self.client() as worker, self.client("operator") as operator:
            await worker.push(text, [sign_detached(text, self.land.person("mara"))])
            wish = ChangeRequest(id=request_id, author="mara", checksum=checksum, reason="a test asks for it")
            await operator.create_change_request(sign_change_request(wish, self.land.person("mara")))
            evidence = await self._evidence(text, request_id, vectors)
            now = datetime.now(UTC)
            decision = ApprovalPredicate(
                kind=Kind.UPDATE,
                environment=ENVIRONMENT,
                checksum=checksum,
                version=parsed.version,
                previous=parsed.previous,
                change_request=request_id,
                evidence=evidence,
                plan=Plan(update_id=update_id, strategy="default", watch=Strategy(), rings=("default",)),
                decision=BoardDecision.APPROVE,
                reason="read and approved",
                issued_at=now,
                expires_at=now + timedelta(hours=1),
            )
            approvals = tuple(sign_approval(decision, self.land.person(name)) for name in ("alva", "bruno"))
            return await self._load(
                worker,
                update_id,
                kind=Kind.UPDATE,
                checksum=checksum,
                change_request=request_id,
                approvals=approvals,
                test_evidence=evidence,
                reason="a test asks for it",
            )

    async def withdraw(self, generation: int) -> LoadResult:
        """Undo a first release, by the word that came with it."""
        async with self.client() as worker:
            return await self._load(
                worker, str(uuid4()), kind=Kind.WITHDRAW, checksum=None, rollback_of=generation, reason="a test asks"
            )

    async def _load(self, worker: ConstitutionServiceClient, update_id: str, **fields: Any) -> LoadResult:
        key = f"{ENVIRONMENT}/{update_id}"
        releases = await worker.releases()
        lease = await worker.acquire_lease(LeaseRequest(update_id=update_id, kind=fields["kind"]), f"{key}/lease")
        try:
            return await worker.load(
                LoadRequest(
                    update_id=update_id,
                    rings=("default",),
                    expected_generation=max((release.generation for release in releases), default=0),
                    fencing_token=lease.fencing_token,
                    workflow=WorkflowRef(workflow_id="test", run_id="test"),
                    **fields,
                ),
                f"{key}/load",
            )
        finally:
            release = LeaseRelease(update_id=update_id, fencing_token=lease.fencing_token)
            await worker.release_lease(release, f"{key}/release")

    async def _evidence(self, text: bytes, request_id: str, vectors: Sequence[Vector]) -> str:
        async with self.client("assessor-client") as assessor:
            return await self._assessed(assessor, text, request_id, vectors)

    async def _assessed(
        self, assessor: ConstitutionServiceClient, text: bytes, request_id: str, vectors: Sequence[Vector]
    ) -> str:
        parsed = parse(text)
        suites = []
        for name, cases in (("policy", _policy_cases(text, vectors)), ("chaos", _chaos_cases(text))):
            started = time.perf_counter()
            results = [(case, problem) for case, problem in cases]
            failures = sum(problem is not None for _, problem in results)
            junit = junit_of(name, results, served=checksum_of(text))
            suites.append(
                EvidenceRecord.Suite(
                    name=name,
                    tests=len(results),
                    failures=failures,
                    errors=0,
                    skipped=0,
                    seconds=time.perf_counter() - started,
                    junit=await assessor.put_blob(junit),
                    served=(checksum_of(text),),
                )
            )
        gate = "".join(vector.model_dump_json() for vector in vectors).encode()
        record = EvidenceRecord(
            environment=ENVIRONMENT,
            checksum=checksum_of(text),
            version=parsed.version,
            previous=parsed.previous.checksum if parsed.previous else None,
            change_request=request_id,
            gate_digest=checksum_of(gate),
            suites=tuple(suites),
        )
        digest, key = await assessor.put_evidence(record), self.land.key("assessor")
        await assessor.put_attestation(sign_attestation(GatePredicate.of(record, digest), key.id, key.private_key))
        return digest


def _policy_cases(text: bytes, vectors: Sequence[Vector]) -> list[tuple[str, str | None]]:
    policy = Policy.compile(parse(text))
    cases = [(vector.name, vector.mismatch(policy.evaluate(vector.request))) for vector in vectors]
    return [("compiles", None), *cases]


def _chaos_cases(text: bytes) -> list[tuple[str, str | None]]:
    """Damaged copies of the document; each must be refused."""
    damaged = {
        "cut in half": text[: len(text) // 2],
        "a key twice": text.replace(b'"title"', b'"version": "9.9.9", "title"', 1),
        "a bit flipped": b"\xff" + text[1:],
        "an unknown field": text.replace(b'"title"', b'"surprise": 1, "title"', 1),
    }
    cases: list[tuple[str, str | None]] = []
    for name, data in damaged.items():
        try:
            parse(data)
        except ConstitutionError:
            cases.append((name, None))
        else:
            cases.append((name, "was accepted"))
    return cases


def create_topics(configuration: dict[str, Any], namespace: str) -> None:
    """Make both topics of a namespace; fine when they are there."""
    names = Names(namespace)
    topics = [
        NewTopic(name, num_partitions=1, replication_factor=1) for name in (names.topic_updated(), names.topic_audit())
    ]
    admin = AdminClient(configuration)  # kept in a name: its futures end with it
    for future in admin.create_topics(topics).values():
        try:
            future.result(20)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise


@contextlib.asynccontextmanager
async def running_town(
    directory: Path,
    *,
    database: Database,
    redis_url: str,
    kafka: dict[str, str],
    kafka_configuration: dict[str, Any],
    namespace: str,
) -> AsyncIterator[Town]:
    """Run a constitution-service for one test."""
    create_topics(kafka_configuration, namespace)
    land = Land.found(directory / "land")
    artifacts, spool = directory / "artifacts", directory / "spool"
    for folder in (artifacts, spool):
        folder.mkdir(mode=0o700)
    service = Service(
        "constitution_service",
        {
            "NAMESPACE": namespace,
            "ENVIRONMENT_FILE": str(land.environment_file),
            "DATABASE_URL": database.url,
            "REDIS_URL": redis_url,
            "ARTIFACT_STORE_URL": f"file://{artifacts}",
            "STATEMENT_KEY_FILE": str(land.key_file("constitution-service")),
            "SPOOL_DIRECTORY": str(spool),
            **kafka,
        },
        directory / "constitution-service.log",
    ).start()
    try:
        await service.ready()
        yield Town(land, service, namespace, kafka)
    finally:
        service.kill()


def event_of(line: str) -> dict[str, Any]:
    """One event of an NDJSON file."""
    event: dict[str, Any] = json.loads(line)
    return event
