"""The outside of activities, as Protocols. ``worker.py`` hands in the implementations.

Every method raises errors of ``constitution.errors`` only: permanent and transient are told apart by the adapter.
"""
# ruff: noqa: D102 - what needs no word here is documented where it is implemented

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from constitution.api import (
    Artifact,
    AuditEvent,
    ChangeRequestRecord,
    CloseRequest,
    DecidedRequest,
    DenialRecord,
    EvidenceRecord,
    Lease,
    LeaseHolder,
    LeaseRelease,
    LeaseRequest,
    LoadRequest,
    LoadResult,
    OrderRecord,
    OrderRequest,
    StandingRequest,
    UpdateRecord,
    ValidateResult,
)
from constitution.checksum import Checksum
from constitution.environment import Environment, Target
from constitution.receipt import ReceiptDocuments, ReceiptRequest, SealedReceipt
from constitution.release import CurrentConstitution, Envelope, Release
from constitution.target_sources import Fleet
from constitution.trust.trust_policy import TrustPolicy
from constitution.watch.prediction import PredictAnswer


class ConstitutionService(Protocol):
    """constitution-service over HTTP (``constitution_client.service.ConstitutionServiceClient``)."""

    async def push(self, document: bytes, signatures: Sequence[bytes]) -> Artifact: ...
    async def artifact(self, checksum: str) -> bytes: ...
    async def artifact_signatures(self, checksum: str) -> list[bytes]: ...
    async def change_request(self, change_request_id: str) -> ChangeRequestRecord: ...
    async def deny(self, change_request_id: str, envelope: Envelope) -> DenialRecord: ...
    async def update(self, update_id: str) -> UpdateRecord: ...
    async def decided(self, update_id: str, request: DecidedRequest) -> UpdateRecord: ...
    async def abort_update(self, update_id: str, request: CloseRequest) -> UpdateRecord: ...
    async def accept_order(self, request: OrderRequest) -> OrderRecord: ...
    async def validate(self, checksum: str) -> ValidateResult: ...
    async def validate_files(self, document: bytes, signatures: Sequence[bytes]) -> ValidateResult: ...
    async def put_evidence(self, evidence: EvidenceRecord) -> str: ...
    async def evidence(self, digest: str) -> EvidenceRecord: ...
    async def put_attestation(self, envelope: Envelope) -> str: ...
    async def attestations(self, *, evidence: str | None = None, generation: int | None = None) -> list[Envelope]: ...
    async def put_blob(self, data: bytes) -> str: ...
    async def blob(self, digest: str) -> bytes: ...
    async def acquire_lease(self, request: LeaseRequest, key: str) -> Lease: ...
    async def release_lease(self, request: LeaseRelease, key: str) -> None: ...
    async def lease(self) -> LeaseHolder | None: ...
    async def load(self, request: LoadRequest, key: str) -> LoadResult: ...
    async def current(self, ring: str = "default", min_generation: int = 0) -> CurrentConstitution | None: ...
    def iter_releases(self) -> AsyncIterator[Release]: ...  # newest first
    async def release(self, generation: int) -> Release: ...
    async def record_standing(self, generation: int, request: StandingRequest, key: str) -> Release: ...
    async def receipt(self, generation: int) -> SealedReceipt: ...
    async def receipt_documents(self, generation: int) -> ReceiptDocuments: ...
    async def seal_receipt(self, generation: int, request: ReceiptRequest) -> SealedReceipt: ...
    async def audit(self, event: AuditEvent) -> None: ...
    async def audit_head(self) -> Envelope: ...


class ActivityConfig(Protocol):
    """The environment as activities need it: read once by the worker (``adapters.worker_config``)."""

    @property
    def name(self) -> str: ...
    @property
    def environment(self) -> Environment: ...
    @property
    def trust(self) -> TrustPolicy: ...
    @property
    def gate_directory(self) -> Path: ...
    @property
    def inbox_directory(self) -> Path: ...
    @property
    def scratch_directory(self) -> Path: ...
    @property
    def links(self) -> dict[str, str]: ...  # {"Temporal UI": url, …}: for people
    async def fleet(self, rings: Collection[str] | None = None) -> Fleet: ...  # as it is listed now


class SuiteReport(Protocol):
    """What one suite of the regression gate found."""

    @property
    def name(self) -> str: ...
    @property
    def tests(self) -> int: ...
    @property
    def junit(self) -> bytes: ...
    @property
    def seconds(self) -> float: ...
    def evidence(self, junit: Checksum) -> EvidenceRecord.Suite: ...


class GateReport(Protocol):
    """What the regression gate found."""

    @property
    def gate_digest(self) -> Checksum: ...
    @property
    def suites(self) -> Sequence[SuiteReport]: ...
    @property
    def seconds(self) -> float: ...
    def require(self) -> None:
        """Raise EvidenceError with every failing case, unless the draft passed."""
        ...


class GateRunner(Protocol):
    """The regression gate in a subprocess (``adapters.regression_gate.run_gate``)."""

    async def __call__(
        self,
        *,
        gate_directory: Path,
        document: bytes,
        previous: bytes | None,
        deadline: timedelta,
        heartbeat: Callable[[str], None],
        scratch: Path,
    ) -> GateReport: ...


class Ledger(Protocol):
    """Independent read-back from Postgres (a read-only role)."""

    async def current_row(self, ring: str) -> tuple[int, str | None] | None:
        """Return (generation, checksum) of the ring's current release, or None."""
        ...

    async def locked(self, name: str, work: Callable[[], Awaitable[Any]]) -> Any:
        """Run ``work`` while holding the advisory lock ``name``: two executions of one activity never interleave."""
        ...


class Cache(Protocol):
    """Independent read-back from Redis, and the runbook's manual DEL."""

    async def read(self, ring: str) -> bytes | None: ...
    async def delete(self, ring: str) -> None: ...


class EventLog(Protocol):
    """Independent read-back from Kafka (read_committed)."""

    # ``event_id`` is the header ``ce_id`` (``<uuid>:<tenant>``), ``raw`` the record's value as text.
    async def find_events(self, generation: int, since: datetime) -> list[dict[str, Any]]:
        """Return the records of a generation: ``{tenant, event_id, partition, offset, checksum, generation, raw}``."""
        ...

    async def group_position(self, group: str, partition: int) -> int | None:
        """Return the committed offset (the next to be read) of a group, named without prefix, or None."""
        ...


class TargetClient(Protocol):
    """A consumer's HTTP API."""

    async def policy(self, target: Target, *, force: bool) -> dict[str, Any]:
        """Return ``{version, checksum, generation, …}`` of a target.

        With ``force``, an orchestrator is asked by ``POST /v1/sessions/start`` with ``deployment_mode``
        ``production-debug``, an engine by ``POST /v1/policy/refresh``.

        Raises:
            UnavailableError: it did not answer; never the same as converged.
        """
        ...

    async def evaluate(self, target: Target, request: dict[str, Any]) -> dict[str, Any]:
        """Ask a policy engine for a decision as tenant ``runbook-probe``."""
        ...

    async def predict(self, target: Target, checksum: Checksum) -> PredictAnswer:
        """Have a policy engine replay its recorded requests through a candidate; counts come back.

        Raises:
            UnavailableError: it did not answer, or says that it cannot.
        """
        ...


class Metrics(Protocol):
    """Raw samples from Prometheus (prometheus-api-client)."""

    async def matrix(self, query: str, at: datetime) -> list[dict[str, Any]]:
        """Return the entries of a range-vector query ``metric[…]`` evaluated at ``at``: raw samples, never rate()."""
        ...

    async def instant(self, query: str) -> list[dict[str, Any]]:
        """Return the entries of an instant query."""
        ...


class Channel(Protocol):
    """Slack (slack-sdk). The cloud behind it cannot be self-hosted: the embedded stack runs an emulator of its API."""

    async def find(self, channel: str, key: str, head: str | None = None) -> tuple[tuple[str, str] | None, str | None]:
        """Return (channel id, ts) of the message whose metadata carries ``key``, and the ts of that with ``head``.

        ``key`` is looked for in the channel and in the thread under ``head``.
        """
        ...

    async def post(
        self, channel: str, *, key: str, text: str, blocks: list[dict[str, Any]], thread_ts: str | None = None
    ) -> tuple[str, str]:
        """Post a message (a reply is also broadcast to the channel) and return (channel id, ts)."""
        ...

    async def edit(self, channel_id: str, ts: str, *, text: str, blocks: list[dict[str, Any]]) -> None:
        """Replace a message of ours."""
        ...

    async def permalink(self, channel_id: str, ts: str) -> str:
        """Return the address of a message."""
        ...


class Archive(Protocol):
    """The legal archive: a git repository (dulwich)."""

    async def commit(
        self,
        files: dict[str, bytes],
        *,
        change_log_row: tuple[str, str] | None,
        message: str,
        manifest: str | None = None,
    ) -> str:
        """Write files and at most one change-log row, commit once, return the commit id.

        ``change_log_row`` is (key, row): the row is added only if no row with that key exists. ``manifest`` is a
        folder whose ``manifest.json`` is made anew. The same files and row again make no new commit and return the
        commit that holds them. Safe under concurrent callers.
        """
        ...

    async def read(self, path: str) -> bytes | None:
        """Return a file at HEAD, or None."""
        ...

    async def paths(self, folder: str) -> frozenset[str]:
        """Return the path of every file below a folder at HEAD."""
        ...


class Runs(Protocol):
    """Temporal's own view of runs (``temporalio.client.Client`` behind it)."""

    async def describe(self, workflow_id: str, run_id: str | None) -> dict[str, Any]:
        """Return ``{status, workflow_id, run_id, type, task_queue, close_time}``; status: Temporal's name in capitals.

        Raises:
            NotFoundError: no such run.
        """
        ...

    async def event_history(self, workflow_id: str, run_id: str | None) -> bytes:
        """Return the history as JSON bytes, the format that the Replayer accepts."""
        ...
