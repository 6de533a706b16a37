"""Plays author, board and operator to one constitution-service: drafts, signs, asks, approves, loads, undoes."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Final
from uuid import uuid4

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from constitution.api import (
    ChangeRequest,
    DenialRecord,
    EvidenceRecord,
    Lease,
    LeaseRelease,
    LeaseRequest,
    LoadRequest,
    LoadResult,
    OrderRecord,
    OrderRequest,
    StandingRequest,
    WorkflowRef,
)
from constitution.checksum import checksum_of
from constitution.environment import Strategy
from constitution.messages import Status
from constitution.policy.draft import fill
from constitution.release import (
    CurrentConstitution,
    Envelope,
    Kind,
    Previous,
    Release,
    ReleasePredicate,
    Standing,
    Verdict,
)
from constitution.rollback_plan import step_of
from constitution.trust.approval import ApprovalPredicate, BoardDecision, OrderPredicate
from constitution.trust.attestation import GatePredicate, GoldenReport, SyncPredicate, WatchPredicate
from constitution.trust.hold_rules import step_of_hold
from constitution.trust.plan import Plan
from constitution.watch.evidence import WatchEvidence
from constitution_client.service import ConstitutionServiceClient
from deploy.embedded.loopback import loopback
from signatures.attestations import Attestation, sign_attestation
from signatures.openpgp import sign_detached
from signatures.statements import sign_approval, sign_change_request, sign_order, sign_release
from tests.helpers import eventually
from tests.world.documents import content, document, rule
from tests.world.files import ENVIRONMENT, EnvironmentFiles
from tests.world.gate import DIGEST, examine

BOARD: Final = ("alva", "bruno")
NO_UPDATE: Final = "00000000-0000-4000-8000-000000000000"  # of a release that nobody made


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A signed draft that was pushed, and the change request that asks for it."""

    document: bytes
    change_request: str

    @property
    def checksum(self) -> str:
        return checksum_of(self.document)

    @property
    def version(self) -> str:
        return str(content(self.document)["version"])

    @property
    def previous(self) -> Previous | None:
        said = content(self.document)["previous"]
        return Previous.model_validate(said) if said else None

    @property
    def input(self) -> dict[str, Any]:
        """Of a ConstitutionUpdate."""
        return {"checksum": self.checksum, "change_request": self.change_request}


class Author:
    """Writes, signs, approves and loads constitutions against one service.

    Args:
        files: the environment's, with everybody's keys.
        url: of the service.
    """

    def __init__(self, files: EnvironmentFiles, url: str) -> None:
        self.files = files
        self.worker = ConstitutionServiceClient(url, files.key("worker"), ENVIRONMENT)
        self.operator = ConstitutionServiceClient(url, files.key("operator"), ENVIRONMENT)
        self.assessor = ConstitutionServiceClient(url, files.key("assessor-client"), ENVIRONMENT)
        self.http = loopback(30, url)
        self._minor = 0

    async def aclose(self) -> None:
        await self.worker.aclose()
        await self.operator.aclose()
        await self.assessor.aclose()
        await self.http.aclose()

    # --- drafting and asking

    def draft(self, version: str, previous: Previous | None = None, /, **changes: Any) -> bytes:
        """A document that allows everything but wires."""
        rules = [rule("no-wire", "deny", "action == 'wire'", "high", f"{version} forbids wires")]
        return document(version, previous, **{"rules": rules, "default_effect": "allow", **changes})

    async def current(self) -> CurrentConstitution | None:
        """What is live, as constitution-service says; None where nothing is."""
        current = await self.operator.current()
        return current if current is not None and current.checksum is not None else None

    async def _next(self) -> tuple[str, Previous | None]:
        """Version and previous of a document that may follow what is live."""
        live = await self.current()
        releases = await self.operator.releases()
        highest = max((int((r.version or "0.0.0").split(".")[1]) for r in releases), default=0)
        self._minor = max(self._minor, highest) + 1
        previous = None
        if live is not None and live.version is not None and live.checksum is not None:
            previous = Previous(version=live.version, checksum=live.checksum)
        return f"1.{self._minor}.0", previous

    async def next_draft(self, template: str | bytes = "tool-use", /, **changes: Any) -> bytes:
        """A draft from a template, that may follow what is live."""
        (version, previous), now = await self._next(), datetime.now(UTC)
        dates = {"issued_at": now, "expires_at": now + timedelta(days=90)}
        said = {"version": version, "environment": ENVIRONMENT, "previous": previous, **dates}
        return fill(template, **{**said, **changes})

    def sign(self, document: bytes, person: str = "mara") -> bytes:
        return sign_detached(document, self.files.tsk(person))

    async def push(self, document: bytes) -> str:
        artifact = await self.worker.push(document, [self.sign(document)])
        return artifact.checksum

    async def ask(self, checksum: str, identity: str | None = None, author: str = "mara") -> str:
        """File a change request, and return its id."""
        request = ChangeRequest(
            id=identity or f"CR-{uuid4().hex[:8]}", author=author, checksum=checksum, reason="the test asks"
        )
        await self.operator.create_change_request(sign_change_request(request, self.files.tsk(author)))
        return request.id

    async def propose(self, document: bytes | None = None) -> Proposal:
        """Draft, sign, push, and ask."""
        document = document or await self.next_draft()
        return Proposal(document=document, change_request=await self.ask(await self.push(document)))

    async def record(self, document: bytes, change_request: str, /, **changes: Any) -> EvidenceRecord:
        """Have the tests' own gate examine a document; what it saw. Changes are lies about it, or name its update."""
        said = content(document)
        record = {
            "environment": ENVIRONMENT,
            "checksum": checksum_of(document),
            "version": said["version"],
            "previous": said["previous"] and said["previous"]["checksum"],
            "change_request": change_request,
            "gate_digest": DIGEST,
            "suites": [await self.suite(name, document) for name in ("policy", "chaos")],
            **changes,
        }
        return EvidenceRecord.model_validate(record)

    async def evidence(self, document: bytes, change_request: str, /, **changes: Any) -> str:
        """The digest of such a record, which is stored and signed by the assessor."""
        return await self.evidence_of(await self.record(document, change_request, **changes))

    async def evidence_of(self, record: EvidenceRecord) -> str:
        """Store a record, signed by the assessor; its digest."""
        digest = await self.assessor.put_evidence(record)
        await self.attest(GatePredicate.of(record, digest))
        return digest

    async def attest(self, predicate: Attestation) -> Envelope:
        """What the assessor signs, stored."""
        key = self.files.key("assessor")
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
        """Run one suite of the tests' own gate; its record, its JUnit file stored. Changes are lies about it."""
        seen = examine(document, name)
        return {
            "name": name,
            "tests": len(seen.cases),
            "failures": seen.failures,
            "errors": 0,
            "skipped": 0,
            "seconds": seen.seconds,
            "junit": await self.assessor.put_blob(seen.junit),
            "served": [seen.served],
            **changes,
        }

    # --- the board

    def plan(self, update_id: str, **changes: Any) -> Plan:
        """How a test's release goes live."""
        said = {"update_id": update_id, "strategy": "default", "watch": Strategy(), "rings": ("default",), **changes}
        return Plan.model_validate(said)

    def decision(self, person: str, **said: Any) -> Envelope:
        """A board member's signed decision; by default the approval of an update."""
        now = datetime.now(UTC)
        predicate = {
            "kind": Kind.UPDATE,
            "environment": ENVIRONMENT,
            "change_request": None,
            "evidence": None,
            "plan": None,
            "decision": BoardDecision.APPROVE,
            "reason": "read and agreed",
            "issued_at": now,
            "expires_at": now + timedelta(days=1),
            **said,
        }
        return sign_approval(ApprovalPredicate.model_validate(predicate), self.files.tsk(person))

    def approvals(
        self, document: bytes | None, *, members: Sequence[str] = BOARD, **changes: Any
    ) -> tuple[Envelope, ...]:
        """Approvals of a document, or of none."""
        said = content(document)
        about = {
            "checksum": None if document is None else checksum_of(document),
            "version": said.get("version"),
            "previous": said.get("previous"),
            **changes,
        }
        return tuple(self.decision(person, **about) for person in members)

    def approval(self, person: str, proposal: Proposal, status: Status, /, **changes: Any) -> Envelope:
        """A decision about an update, whose run says this of itself."""
        bound = {"change_request": proposal.change_request, "evidence": status.evidence, "plan": status.plan}
        return self.approvals(proposal.document, members=(person,), **{**bound, **changes})[0]

    async def rollback_approval(self, person: str, bad_generation: int, status: Status) -> Envelope:
        """An approval of the rollback that says this of itself."""
        bad = await self.operator.release(bad_generation)
        return self.decision(
            person,
            kind=Kind.ROLLBACK if status.checksum else Kind.WITHDRAW,
            checksum=status.checksum,
            version=status.version,
            previous=Previous(version=bad.version, checksum=bad.checksum) if bad.version and bad.checksum else None,
            rollback_of=bad_generation,
        )

    def denial(self, change_request: str, checksum: str | None, person: str = "alva", **changes: Any) -> Envelope:
        """A board member's signed no."""
        said = {"checksum": checksum, "version": "1.0.0", "previous": None, "reason": "too lenient", **changes}
        return self.decision(person, change_request=change_request, decision=BoardDecision.DENY, **said)

    async def deny(self, change_request: str, checksum: str | None, person: str = "alva") -> DenialRecord:
        return await self.worker.deny(change_request, self.denial(change_request, checksum, person))

    async def orders(
        self, generation: int, order: str, members: Sequence[str] = BOARD, **changes: Any
    ) -> tuple[Envelope, ...]:
        """Board members' orders about a release."""
        release = await self.worker.release(generation)
        said = {
            "workflow_id": release.workflow["workflow_id"],
            "update_id": release.update_id,
            "order": order,
            "step": step_of(generation),
            **changes,
        }
        return tuple(self.signed_order(person, **said) for person in members)

    # --- orders to a run

    def signed_order(self, person: str, **said: Any) -> Envelope:
        """A person's order."""
        now = datetime.now(UTC)
        predicate = {
            "environment": ENVIRONMENT,
            "reason": "the test asks",
            "issued_at": now,
            "expires_at": now + timedelta(hours=1),
            **said,
        }
        return sign_order(OrderPredicate.model_validate(predicate), self.files.tsk(person))

    def order(self, verb: str, workflow_id: str, status: Status, person: str = "olga", /, **changes: Any) -> Envelope:
        """An order to the run that says this of itself; by default an operator's."""
        step = status.step if verb in {"retry", "skip"} else None
        if verb == "rollback":
            step = step_of(status.undoes or 0)
        if verb == "resume" and status.held:
            step = status.held[0].name
        about = {"workflow_id": workflow_id, "update_id": status.update_id, "order": verb, "step": step}
        return self.signed_order(person, **{**about, **changes})

    def order_request(
        self, update_id: str, verb: str, person: str = "olga", /, *, step: str | None = None, **changes: Any
    ) -> OrderRequest:
        """An order, as the run "test" hands it to constitution-service."""
        about = {"workflow_id": "test", "update_id": update_id, "order": verb, "step": step}
        return OrderRequest(
            update_id=update_id,
            workflow=WorkflowRef(workflow_id="test", run_id="run"),
            attempt=f"run/{uuid4().hex}",
            order=verb,
            step=step,
            envelope=self.signed_order(person, **{**about, **changes}),
        )

    async def held_and_resumed(self, update_id: str) -> None:
        """Have an operator's hold accepted, and another order that ends it."""
        held = await self.worker.accept_order(self.order_request(update_id, "hold"))
        await self.worker.accept_order(self.order_request(update_id, "resume", step=step_of_hold(held.digest)))

    async def ordered(self, update_id: str, generation: int, /, **changes: Any) -> OrderRecord:
        """Have an operator's order to undo a release accepted."""
        request = self.order_request(update_id, "rollback", step=step_of(generation), **changes)
        return await self.worker.accept_order(request)

    # --- releasing

    async def prepared(
        self,
        document: bytes,
        *,
        expected_generation: int | None = None,
        update_id: str | None = None,
        pushed: bool = False,
    ) -> LoadRequest:
        """Everything that a load of this document takes, but the lease; by default on top of what was released.

        Pushed: others have signed and pushed it, and nobody signs it here.
        """
        if expected_generation is None:
            expected_generation = max((r.generation for r in await self.worker.releases()), default=0)
        checksum = checksum_of(document) if pushed else await self.push(document)
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
        """Take the lease; an undo is ordered first, by an operator, where anything is live."""
        request = LeaseRequest(update_id=update_id, kind=kind, workflow_id="test")
        if kind.undoes:
            live = max((release.generation for release in await self.worker.releases()), default=None)
            request = request.model_copy(update={"own_only": live is None, "undoes": live})
            if live is not None:
                await self.ordered(update_id, live)
        return await self.worker.acquire_lease(request, key(update_id, step or f"lease-{uuid4().hex}"))

    async def release_lease(self, lease: Lease) -> None:
        request = LeaseRelease(update_id=lease.update_id, fencing_token=lease.fencing_token)
        await self.worker.release_lease(request, key(lease.update_id, "release"))

    async def publish(self, document: bytes, *, expected_generation: int | None = None) -> tuple[LoadResult, Lease]:
        """Put a document live; the lease is still held."""
        request = await self.prepared(document, expected_generation=expected_generation)
        lease = await self.lease(request.update_id)
        request = request.model_copy(update={"fencing_token": lease.fencing_token})
        return await self.load(request), lease

    async def confirmed(self, document: bytes, *, expected_generation: int | None = None) -> LoadResult:
        """Put a document live, confirm it, give the lease back."""
        result, lease = await self.publish(document, expected_generation=expected_generation)
        await self.stand(result.generation, Standing.CONFIRMED, lease)
        await self.release_lease(lease)
        return result

    async def released(self, **changes: Any) -> CurrentConstitution:
        """Put the next document live and confirm it: `RULES`, or what these changes say; what is live then."""
        await self.confirmed(document(*await self._next(), **changes))
        live = await self.current()
        assert live is not None
        return live

    async def load(self, request: LoadRequest, step: str = "load") -> LoadResult:
        return await self.worker.load(request, key(request.update_id, step))

    async def post_load(self, request: LoadRequest, step: str = "load") -> httpx.Response:
        """Load without the client's error mapping: the whole answer."""
        headers = {
            "Authorization": f"Bearer {self.files.token('worker', 'load:write')}",
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

    # --- judging and undoing

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

    async def withdraw(self, bad: int) -> LoadResult:
        """Undo a first release, by the approvals that came with it."""
        lease = await self.lease(str(uuid4()), Kind.ROLLBACK)
        result = await self.load(self.undoing(lease, bad, None))
        await self.release_lease(lease)
        return result


@dataclass(frozen=True)
class Forger:
    """Makes answers that constitution-service did not give, each with the keys that the test names.

    With a key of its own it is an attacker on the wire; with the service's, one who has stolen that, or who plays back
    what the service has said in another place, ring or hour.
    """

    files: EnvironmentFiles

    @cached_property
    def stranger(self) -> Ed25519PrivateKey:
        """A key that nobody has pinned."""
        return Ed25519PrivateKey.generate()

    def current(
        self,
        generation: int,
        text: bytes | None,
        *,
        environment: str = ENVIRONMENT,
        ring: str = "default",
        signing_key: Ed25519PrivateKey | None = None,
        keyid: str = "constitution-service",
        signers: tuple[str, ...] = ("mara",),
    ) -> CurrentConstitution:
        """A whole answer about one release, signed with the service's key, or with another."""
        signatures = [] if text is None else [sign_detached(text, self.files.tsk(name)) for name in signers]
        fields: dict[str, Any] = {
            "environment": environment,
            "generation": generation,
            "kind": Kind.WITHDRAW if text is None else Kind.UPDATE,
            "version": content(text).get("version"),
            "checksum": None if text is None else checksum_of(text),
            "effective_at": datetime.now(UTC),
        }
        predicate = ReleasePredicate(
            **fields,
            rings=(ring,),
            previous=None,
            signatures=tuple(checksum_of(data) for data in signatures),
            update_id=NO_UPDATE,
        )
        return CurrentConstitution(
            **fields,
            document=None if text is None else text.decode(),
            signatures=tuple(base64.b64encode(data).decode() for data in signatures),
            statement=sign_release(predicate, keyid, signing_key or self.files.key("constitution-service").private_key),
        )


def event_of(current: CurrentConstitution, **changes: object) -> bytes:
    """The value of a ``constitution.updated`` record about a release."""
    fields = {
        "tenant": "global",
        "environment": current.environment,
        "rings": ["default"],
        "generation": current.generation,
        "checksum": current.checksum,
        "statement": current.statement.model_dump(mode="json"),
    }
    return json.dumps({**fields, **changes}).encode()


def key(update_id: str, step: str) -> str:
    """The idempotency key of one step."""
    return f"{ENVIRONMENT}/{update_id}/{step}"
