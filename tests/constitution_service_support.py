"""Runs constitution-service as a real process on real servers, and plays author, board and worker to it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from constitution.api import (
    ChangeRequest,
    DenialRecord,
    EvidenceRecord,
    Lease,
    LeaseRelease,
    LeaseRequest,
    LoadRequest,
    LoadResult,
    StandingRequest,
    WorkflowRef,
)
from constitution.checksum import checksum_of
from constitution.environment import Strategy
from constitution.release import Envelope, Kind, Previous, Release, Standing, Verdict
from constitution.trust.approval import ApprovalPredicate, BoardDecision, OrderPredicate
from constitution.trust.attestation import GatePredicate, GoldenReport, SyncPredicate, WatchPredicate
from constitution.trust.plan import Plan
from constitution.trust.trust_policy import TrustPolicy
from constitution.watch.evidence import WatchEvidence
from constitution_client.ceremony import make_trust
from constitution_client.service import ConstitutionServiceClient
from signatures.attestations import Attestation, sign_attestation
from signatures.openpgp import sign_detached
from signatures.statements import sign_approval, sign_change_request, sign_order
from signatures.tokens import ClientKey, mint
from signatures.trust_files import load_trust
from tests.helpers import eventually, whole_lines
from tests.junit import junit_of
from tests.ports import free_port

ENVIRONMENT = "testing"
CHECKOUT = Path(__file__).resolve().parents[1]
START = timedelta(seconds=30)


@dataclass(frozen=True)
class Site:
    """One environment's files: trust, keys, environment.toml."""

    directory: Path
    trust: TrustPolicy

    @property
    def environment_file(self) -> Path:
        return self.directory / "environment.toml"

    def tsk(self, person: str) -> bytes:
        return (self.directory / "keys" / f"{person}.tsk").read_bytes()

    def key(self, client: str) -> ClientKey:
        return ClientKey.load(self.directory / "keys" / f"{client}.jwk")

    def token(self, client: str, *scopes: str) -> str:
        return mint(self.key(client), environment=ENVIRONMENT, scopes=scopes, now=datetime.now(UTC))


def make_site(directory: Path, tenants: Sequence[str] = ("global",)) -> Site:
    make_trust(directory, ENVIRONMENT)
    (directory / "environment.toml").write_text(
        f'schema_version = 1\nenvironment = "{ENVIRONMENT}"\ngate = "gate"\ntenants = {json.dumps(list(tenants))}\n'
    )
    return Site(directory, load_trust(directory / "trust" / "trust.toml"))


@dataclass(frozen=True)
class Received:
    """One record of a topic."""

    key: str
    headers: dict[str, str]
    value: dict[str, Any]
    offset: int

    @classmethod
    def of(cls, message: Any) -> "Received":
        return cls(
            key=message.key().decode(),
            headers={name: data.decode() for name, data in message.headers() or []},
            value=json.loads(message.value()),
            offset=message.offset(),
        )


@dataclass
class ServiceProcess:
    """``python -m services.constitution_service`` with its log; ends with the test."""

    environment: dict[str, str]
    log: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    killed: bool = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def begin(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "services.constitution_service"],
                env={**self.environment, "PORT": str(self.port), "PATH": os.environ["PATH"]},
                stdout=log,
                stderr=log,
                cwd=CHECKOUT,
            )

    def start(self, accepted: Sequence[int] = (200,)) -> "ServiceProcess":
        self.begin()
        deadline = time.monotonic() + START.total_seconds()
        while time.monotonic() < deadline:
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()
            try:
                if httpx.get(f"{self.url}/readyz", timeout=5).status_code in accepted:
                    return self
            except httpx.TransportError:
                time.sleep(0.05)
        raise AssertionError(f"not ready: {self.log.read_text()[-4000:]}")

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        assert self.process is not None
        self.killed = True
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def events(self, name: str) -> list[dict[str, Any]]:
        """Lines of the log with this event name."""
        lines = [json.loads(line) for line in whole_lines(self.log) if line.startswith("{")]
        return [line for line in lines if line.get("event") == name]


class Author:
    """Writes, signs, approves and loads constitutions against one service."""

    def __init__(self, site: Site, url: str) -> None:
        self.site = site
        self.worker = ConstitutionServiceClient(url, site.key("worker"), ENVIRONMENT)
        self.operator = ConstitutionServiceClient(url, site.key("operator"), ENVIRONMENT)
        self.assessor = ConstitutionServiceClient(url, site.key("assessor-client"), ENVIRONMENT)
        self.http = httpx.AsyncClient(base_url=url, timeout=30)

    async def aclose(self) -> None:
        await self.worker.aclose()
        await self.operator.aclose()
        await self.assessor.aclose()
        await self.http.aclose()

    def draft(self, version: str, previous: Previous | None = None, /, **changes: Any) -> bytes:
        now = datetime.now(UTC)
        document = {
            "schema_version": 1,
            "environment": ENVIRONMENT,
            "version": version,
            "title": "Agents of the test",
            "summary": f"What {version} says",
            "issued_at": now.isoformat().replace("+00:00", "Z"),
            "expires_at": (now + timedelta(days=90)).isoformat().replace("+00:00", "Z"),
            "previous": None if previous is None else previous.model_dump(),
            "principles": [{"id": "care", "text": "Agents act with care."}],
            "rules": [
                {
                    "id": "no-wire",
                    "principle": "care",
                    "effect": "deny",
                    "when": "action == 'wire'",
                    "severity": "high",
                    "message": f"{version} forbids wires",
                }
            ],
            "default_effect": "allow",
            **changes,
        }
        return json.dumps(document, indent=1).encode()

    def soon(self, **delta: int) -> str:
        """A time from now on, as documents write it."""
        return (datetime.now(UTC) + timedelta(**delta)).isoformat().replace("+00:00", "Z")

    def sign(self, document: bytes, person: str = "mara") -> bytes:
        return sign_detached(document, self.site.tsk(person))

    async def push(self, document: bytes) -> str:
        artifact = await self.worker.push(document, [self.sign(document)])
        return artifact.checksum

    async def ask(self, checksum: str, identity: str | None = None) -> str:
        request = ChangeRequest(
            id=identity or f"CR-{uuid4().hex[:8]}", author="mara", checksum=checksum, reason="the test asks"
        )
        await self.operator.create_change_request(sign_change_request(request, self.site.tsk("mara")))
        return request.id

    async def evidence(self, document: bytes, change_request: str, /, **changes: Any) -> str:
        said = json.loads(document)
        suites = [await self.suite(name, document) for name in ("policy", "chaos")]
        record = {
            "environment": ENVIRONMENT,
            "checksum": checksum_of(document),
            "version": said["version"],
            "previous": said["previous"] and said["previous"]["checksum"],
            "change_request": change_request,
            "gate_digest": checksum_of(b"gate"),
            "suites": suites,
            **changes,
        }
        return await self.evidence_of(EvidenceRecord.model_validate(record))

    async def evidence_of(self, record: EvidenceRecord) -> str:
        """Store a record, signed by the assessor; its digest."""
        digest = await self.assessor.put_evidence(record)
        await self.attest(GatePredicate.of(record, digest))
        return digest

    async def attest(self, predicate: Attestation) -> Envelope:
        """What the assessor signs, stored."""
        key = self.site.key("assessor")
        envelope = sign_attestation(predicate, key.id, key.private_key)
        await self.assessor.put_attestation(envelope)
        return envelope

    async def synced(self, generation: int, **changes: Any) -> SyncPredicate:
        """What the assessor says when every target obeys a release."""
        release = await self.worker.release(generation)
        said = {
            "environment": ENVIRONMENT,
            "generation": generation,
            "update_id": release.update_id,
            "checksum": release.checksum,
            "rings": release.rings,
            "targets": (),
            "golden": GoldenReport(engines=(), vectors=1),
            "seen_at": datetime.now(UTC),
            **changes,
        }
        return SyncPredicate.model_validate(said)

    async def watched(self, generation: int, evidence: str, **changes: Any) -> WatchPredicate:
        """What the assessor says of a watch that saw nothing, as the board of `plan` signs it."""
        release = await self.worker.release(generation)
        said = {
            "environment": ENVIRONMENT,
            "generation": generation,
            "update_id": release.update_id,
            "strategy": Strategy(),
            "test_evidence": release.evidence,
            "published_at": release.effective_at,
            "ends_at": release.effective_at + timedelta(seconds=Strategy().watch_seconds),
            "decided_at": release.effective_at,
            "verdict": Verdict.OK,
            "evidence": evidence,
            **changes,
        }
        return WatchPredicate.model_validate(said)

    async def suite(self, name: str, document: bytes, **changes: Any) -> dict[str, Any]:
        """A green suite of three cases about a document, its JUnit file stored."""
        served = checksum_of(document)
        junit = junit_of(name, [(f"case {number}", None) for number in range(3)], served=served)
        return {
            "name": name,
            "tests": 3,
            "failures": 0,
            "errors": 0,
            "skipped": 0,
            "seconds": 0.5,
            "junit": await self.assessor.put_blob(junit),
            "served": [served],
            **changes,
        }

    def plan(self, update_id: str, **changes: Any) -> Plan:
        """How a test's release goes live."""
        said = {"update_id": update_id, "strategy": "default", "watch": Strategy(), "rings": ("default",), **changes}
        return Plan.model_validate(said)

    def approvals(
        self,
        document: bytes | None,
        *,
        change_request: str | None = None,
        evidence: str | None = None,
        plan: Plan | None = None,
        people: Sequence[str] = ("alva", "bruno"),
        **changes: Any,
    ) -> tuple[Envelope, ...]:
        now = datetime.now(UTC)
        said = {} if document is None else json.loads(document)
        predicate = {
            "kind": Kind.UPDATE,
            "environment": ENVIRONMENT,
            "checksum": None if document is None else checksum_of(document),
            "version": said.get("version"),
            "previous": said.get("previous"),
            "change_request": change_request,
            "evidence": evidence,
            "plan": plan,
            "decision": BoardDecision.APPROVE,
            "reason": "read and agreed",
            "issued_at": now,
            "expires_at": now + timedelta(days=1),
            **changes,
        }
        signed = ApprovalPredicate.model_validate(predicate)
        return tuple(sign_approval(signed, self.site.tsk(person)) for person in people)

    def denial(self, change_request: str, checksum: str | None, person: str = "alva", **changes: Any) -> Envelope:
        """A board member's signed no."""
        now = datetime.now(UTC)
        predicate = {
            "kind": Kind.UPDATE,
            "environment": ENVIRONMENT,
            "checksum": checksum,
            "version": "1.0.0",
            "previous": None,
            "change_request": change_request,
            "evidence": None,
            "decision": BoardDecision.DENY,
            "reason": "too lenient",
            "issued_at": now,
            "expires_at": now + timedelta(days=1),
            **changes,
        }
        return sign_approval(ApprovalPredicate.model_validate(predicate), self.site.tsk(person))

    async def deny(self, change_request: str, checksum: str | None, person: str = "alva") -> DenialRecord:
        return await self.worker.deny(change_request, self.denial(change_request, checksum, person))

    async def prepared(self, document: bytes, *, expected_generation: int, update_id: str | None = None) -> LoadRequest:
        """Everything that a load of this document takes, but the lease."""
        checksum = await self.push(document)
        change_request = await self.ask(checksum)
        identity = update_id or str(uuid4())
        evidence = await self.evidence(document, change_request, update_id=identity)
        return LoadRequest(
            update_id=identity,
            kind=Kind.UPDATE,
            checksum=checksum,
            rings=("default",),
            expected_generation=expected_generation,
            fencing_token=0,
            change_request=change_request,
            approvals=self.approvals(
                document, change_request=change_request, evidence=evidence, plan=self.plan(identity)
            ),
            test_evidence=evidence,
            reason="the test updates",
            workflow=WorkflowRef(workflow_id="test", run_id="run"),
        )

    async def lease(self, update_id: str, kind: Kind = Kind.UPDATE, step: str | None = None) -> Lease:
        request = LeaseRequest(update_id=update_id, kind=kind, workflow_id="test")
        return await self.worker.acquire_lease(request, key(update_id, step or f"lease-{uuid4().hex}"))

    async def release_lease(self, lease: Lease) -> None:
        request = LeaseRelease(update_id=lease.update_id, fencing_token=lease.fencing_token)
        await self.worker.release_lease(request, key(lease.update_id, "release"))

    async def publish(self, document: bytes, *, expected_generation: int) -> tuple[LoadResult, Lease]:
        """Put a document live; the lease is still held."""
        request = await self.prepared(document, expected_generation=expected_generation)
        lease = await self.lease(request.update_id)
        request = request.model_copy(update={"fencing_token": lease.fencing_token})
        return await self.worker.load(request, key(request.update_id, "load")), lease

    async def anomaly(self, generation: int, **changes: Any) -> str:
        """Signed evidence of a watch of this release that says anomaly; its digest."""
        release = await self.worker.release(generation)
        said = {
            "environment": ENVIRONMENT,
            "update_id": release.update_id,
            "generation": generation,
            "strategy": Strategy(),
            "test_evidence": release.evidence,
            "published_at": release.effective_at,
            "ends_at": release.effective_at,
            "alpha": 0.01,
            "limit": 4.6,
            "log_e": (),
            "verdict": Verdict.ANOMALY,
            "reason": "refusals doubled",
            "decided_at": release.effective_at,
            "leading": "deny_share",
            "quantities": {},
            "samples": {},
            **changes,
        }
        evidence = WatchEvidence.model_validate(said)
        digest = await self.assessor.put_blob(evidence.model_dump_json().encode())
        shared = {
            name: getattr(evidence, name)
            for name in ("update_id", "strategy", "test_evidence", "published_at", "ends_at", "decided_at", "verdict")
        }
        await self.attest(await self.watched(generation, digest, **shared))
        return digest

    async def orders(
        self, generation: int, order: str, people: Sequence[str] = ("alva", "bruno"), **changes: Any
    ) -> tuple[Envelope, ...]:
        """Board members' orders about a release."""
        release, now = await self.worker.release(generation), datetime.now(UTC)
        said = {
            "environment": ENVIRONMENT,
            "workflow_id": release.workflow["workflow_id"],
            "update_id": release.update_id,
            "order": order,
            "step": f"generation-{generation}",
            "reason": "it must go",
            "issued_at": now,
            "expires_at": now + timedelta(hours=1),
            **changes,
        }
        predicate = OrderPredicate.model_validate(said)
        return tuple(sign_order(predicate, self.site.tsk(person)) for person in people)

    async def stand(
        self,
        generation: int,
        standing: Standing,
        lease: Lease,
        step: str = "standing",
        *,
        attested: bool = True,
        orders: Sequence[Envelope] = (),
    ) -> Release:
        """Record what became of a release, as the holder of a lease; by default the assessor has seen what it takes."""
        if attested and standing is Standing.POISONED:
            await self.anomaly(generation)
        if attested and standing is Standing.CONFIRMED:
            await self.attest(await self.synced(generation))
            await self.attest(await self.watched(generation, await self.assessor.put_blob(b'{"samples": []}')))
        request = StandingRequest(
            standing=standing,
            reason=f"the test says {standing}",
            update_id=lease.update_id,
            fencing_token=lease.fencing_token,
            orders=tuple(orders),
        )
        return await self.worker.record_standing(
            generation, request, key(lease.update_id, f"{step}-{standing}-{generation}")
        )

    async def confirmed(self, document: bytes, *, expected_generation: int) -> LoadResult:
        """Put a document live, confirm it, give the lease back."""
        result, lease = await self.publish(document, expected_generation=expected_generation)
        await self.stand(result.generation, Standing.CONFIRMED, lease)
        await self.release_lease(lease)
        return result

    def undoing(self, lease: Lease, bad: int, checksum: str | None, approvals: Sequence[Envelope] = ()) -> LoadRequest:
        """The load that undoes generation ``bad``, which is the highest."""
        return LoadRequest(
            update_id=lease.update_id,
            kind=Kind.WITHDRAW if checksum is None else Kind.ROLLBACK,
            checksum=checksum,
            rings=("default",),
            expected_generation=bad,
            fencing_token=lease.fencing_token,
            approvals=tuple(approvals),
            rollback_of=bad,
            reason="the test undoes",
            workflow=WorkflowRef(workflow_id="test", run_id="run"),
        )

    async def load(self, request: LoadRequest, step: str = "load") -> LoadResult:
        return await self.worker.load(request, key(request.update_id, step))

    async def confirmed_after_withdraw(self, document: bytes, held: Lease, *, expected_generation: int) -> LoadResult:
        """Give the rollback's lease back, then put a first release live again."""
        await self.release_lease(held)
        return await self.confirmed(document, expected_generation=expected_generation)

    async def post_load(self, request: LoadRequest, step: str = "load") -> httpx.Response:
        """Load without the client's error mapping: the whole answer."""
        headers = {
            "Authorization": f"Bearer {self.site.token('worker', 'load:write')}",
            "Idempotency-Key": key(request.update_id, step),
            "Content-Type": "application/json",
        }
        return await self.http.post("/v1/constitution/load", content=request.model_dump_json(), headers=headers)

    async def delivered(self, generation: int) -> Release:
        """Wait until the release is in Redis and on Kafka."""

        async def there() -> Release:
            release = await self.worker.release(generation)
            assert release.delivery.delivered_at is not None
            assert release.delivery.redis_at is not None
            return release

        return await eventually(there)


def key(update_id: str, step: str) -> str:
    return f"{ENVIRONMENT}/{update_id}/{step}"


def following(result: LoadResult) -> Previous:
    """What the next document names as its previous."""
    assert result.version is not None
    assert result.checksum is not None
    return Previous(version=result.version, checksum=result.checksum)
