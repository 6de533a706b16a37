"""The typed client of constitution-service: one method per route, errors of the domain, nothing else.

Used by the command line, by the worker's activities and by tests. Guarantees:

- every call has a time limit; answers are capped at ``MAX_ANSWER`` bytes; redirects are not followed;
- a call is repeated only when repeating is harmless (reads, content-addressed writes, calls that carry an
  ``Idempotency-Key``), only when the service did not answer or said 503, and at most ``ATTEMPTS`` times;
- each call that changes something carries a token of its own, minted for exactly the scope it needs;
- bytes fetched by checksum are compared with that checksum before they are returned.

It verifies no signatures: who obeys a constitution calls ``signatures.current.verify_current`` on the answer.
"""

import base64
import binascii
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import quote

import httpx
import rfc8785
import stamina
from pydantic import BaseModel, ValidationError

from constitution.addresses import host_of
from constitution.api import (
    Artifact,
    ArtifactSignatures,
    AuditEvent,
    ChangeRequestRecord,
    EvidenceRecord,
    Lease,
    LeaseRelease,
    LeaseRequest,
    LoadRequest,
    LoadResult,
    ReadyReport,
    StandingRequest,
    ValidateRequest,
    ValidateResult,
)
from constitution.checksum import checksum_of
from constitution.errors import (
    ConstitutionError,
    ForbiddenError,
    InvalidRequestError,
    UnavailableError,
    UntrustedError,
)
from constitution.release import CurrentConstitution, Envelope, Release
from constitution_client.problems import error_of
from signatures.authorities import authorities

if TYPE_CHECKING:
    from signatures.tokens import ClientKey

ATTEMPTS = 4
RETRY_FOR = timedelta(seconds=15)  # below the shortest activity timeout, so that the caller's own policy decides
RELEASES_AT_ONCE = 50  # each carries its statement and approvals: 6 KiB of JSON, 15 in memory
MAX_ANSWER = 64 * 1024 * 1024  # bytes: an attachment of evidence is the largest thing served, up to 32 MiB
TIMEOUT = httpx.Timeout(connect=3.0, read=10.0, write=10.0, pool=5.0)  # seconds
LOAD_TIMEOUT = httpx.Timeout(connect=3.0, read=30.0, write=10.0, pool=5.0)  # verifies up to 16 signatures under a lock
_MAX_RETRY_AFTER = 5.0  # seconds: a server may ask us to wait, not to hang

_M = TypeVar("_M", bound=BaseModel)


class _Answer:
    """Status, headers and whole body of one answer."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: httpx.Headers, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body


class _RetryableError(UnavailableError):
    """Unavailable, and the service said for how long (seconds), if it did."""

    def __init__(self, message: str, *, hint: str = "", wait: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.wait = wait


def _backoff(error: Exception) -> bool | float:
    if not isinstance(error, _RetryableError):
        return False
    return True if error.wait is None else error.wait


class ConstitutionServiceClient:
    """Async client of constitution-service; close it, or use it as an async context manager.

    Args:
        base_url: e.g. ``http://127.0.0.1:8080``; no path.
        client_key: mints the tokens of changing calls; None for a client that only reads.
        environment: bound into every token, so that one for staging is worth nothing in production.
        clock: the time tokens are minted at.

    Raises:
        InvalidRequestError: ``base_url`` is no http(s) address.
    """

    def __init__(
        self,
        base_url: str,
        client_key: "ClientKey | None",
        environment: str,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        try:
            url = httpx.URL(base_url)
        except (httpx.InvalidURL, TypeError) as error:
            raise InvalidRequestError(
                f"CONSTITUTION_SERVICE_URL is not the address of constitution-service: {error}"
            ) from error
        if url.scheme not in {"http", "https"} or not url.host:
            raise InvalidRequestError(
                "this is not the address of constitution-service",
                hint="set CONSTITUTION_SERVICE_URL, e.g. http://127.0.0.1:8080",
            )
        self._url = url
        self._key = client_key
        self._environment = environment
        self._clock = clock
        # trust_env is off: a proxy variable meant for downloads must not see tokens. The system's own certificate
        # store (and SSL_CERT_FILE) is used, so that a private authority works.
        self._http = httpx.AsyncClient(
            base_url=url,
            timeout=TIMEOUT,
            trust_env=False,
            follow_redirects=False,
            verify=authorities() if url.scheme == "https" else True,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._http.aclose()

    # -- artifacts ---------------------------------------------------------------------------------------------

    async def push(self, document: bytes, signatures: Sequence[bytes]) -> Artifact:
        """Store a document and its detached signatures; the same bytes again give the same answer.

        Raises:
            InvalidDocumentError: the document breaks its schema; all issues are listed.
            UntrustedError: the signatures do not meet the trust policy.
            ForbiddenError, UnavailableError: as for every call.
        """
        answer = await self._call(
            "POST", "/v1/constitution/artifacts", scope="artifacts:write", files=_multipart(document, signatures)
        )
        return _read(answer, Artifact)

    async def artifact(self, checksum: str) -> bytes:
        """Return the exact bytes of a document.

        Raises:
            NotFoundError: there is no such artifact.
            UntrustedError: the bytes served are not those the checksum names.
        """
        return await self._content(f"/v1/constitution/artifacts/{quote(checksum, safe=':')}", checksum)

    async def artifact_signatures(self, checksum: str) -> list[bytes]:
        """Return the detached signature files of a document.

        Raises:
            NotFoundError: there is no such artifact.
        """
        answer = await self._call("GET", f"/v1/constitution/artifacts/{quote(checksum, safe=':')}/signatures")
        try:
            return [base64.b64decode(s, validate=True) for s in _read(answer, ArtifactSignatures).signatures]
        except binascii.Error as error:
            raise UnavailableError("constitution-service answered with signatures that are not base64") from error

    # -- change requests, validation ---------------------------------------------------------------------------

    async def create_change_request(self, envelope: Envelope) -> ChangeRequestRecord:
        """Store a signed change request.

        Raises:
            UntrustedError: the signature is not its author's.
            ConflictError: another change request has this id.
        """
        answer = await self._call(
            "POST", "/v1/constitution/change-requests", scope="change-requests:write", body=envelope
        )
        return _read(answer, ChangeRequestRecord)

    async def change_request(self, change_request_id: str) -> ChangeRequestRecord:
        """Return a stored change request.

        Raises:
            NotFoundError: there is no such change request.
        """
        answer = await self._call("GET", f"/v1/constitution/change-requests/{quote(change_request_id, safe='')}")
        return _read(answer, ChangeRequestRecord)

    async def validate(self, checksum: str) -> ValidateResult:
        """Ask whether a stored artifact could go live now. Changes nothing.

        Raises:
            NotFoundError: there is no such artifact.
        """
        answer = await self._call(
            "POST", "/v1/constitution/validate", scope=self._if_known, body=ValidateRequest(checksum=checksum)
        )
        return _read(answer, ValidateResult)

    async def validate_files(self, document: bytes, signatures: Sequence[bytes]) -> ValidateResult:
        """Ask whether these files could go live now. Stores and changes nothing."""
        answer = await self._call(
            "POST", "/v1/constitution/validate", scope=self._if_known, files=_multipart(document, signatures)
        )
        return _read(answer, ValidateResult)

    # -- evidence ----------------------------------------------------------------------------------------------

    async def put_evidence(self, record: EvidenceRecord) -> str:
        """Store evidence under the checksum of its RFC 8785 bytes; returns that digest.

        Raises:
            UntrustedError: the service names it by another digest than this record has.
        """
        answer = await self._call("POST", "/v1/constitution/evidence", scope="evidence:write", body=record)
        return _same(_digest(answer), _evidence_digest(record))

    async def evidence(self, digest: str) -> EvidenceRecord:
        """Return stored evidence.

        Raises:
            NotFoundError: there is none under this digest.
            UntrustedError: the record served is not the one that the digest names.
        """
        answer = await self._call("GET", f"/v1/constitution/evidence/{quote(digest, safe=':')}")
        record = _read(answer, EvidenceRecord)
        _same(_evidence_digest(record), digest)
        return record

    async def put_blob(self, data: bytes) -> str:
        """Store an attachment of evidence (a JUnit file) under its checksum; returns that digest.

        Raises:
            UntrustedError: the service names it by another checksum than these bytes have.
        """
        answer = await self._call("POST", "/v1/constitution/blobs", scope="evidence:write", content=data)
        return _same(_digest(answer), checksum_of(data))

    async def blob(self, digest: str) -> bytes:
        """Return an attachment's exact bytes.

        Raises:
            NotFoundError: there is none under this digest.
            UntrustedError: the bytes served are not those the digest names.
        """
        return await self._content(f"/v1/constitution/blobs/{quote(digest, safe=':')}", digest)

    # -- lease -------------------------------------------------------------------------------------------------

    async def acquire_lease(self, request: LeaseRequest, key: str) -> Lease:
        """Take the environment's lease, and the fencing token that shuts out everyone before.

        Args:
            request: who wants it, and for which kind; a rollback pre-empts an update.
            key: ``Idempotency-Key``: ``<environment>/<update_id>/<step>``.

        Raises:
            LeaseHeldError: another run holds it; the message names it.
        """
        answer = await self._call("POST", "/v1/constitution/lease", scope="lease:write", body=request, key=key)
        return _read(answer, Lease)

    async def release_lease(self, request: LeaseRelease, key: str) -> None:
        """Give the lease back; with an old token nothing happens."""
        await self._call("DELETE", "/v1/constitution/lease", scope="lease:write", body=request, key=key)

    async def lease(self) -> Lease | None:
        """Return who holds the lease, or None while nobody does."""
        answer, problem = await self._send_retrying("GET", "/v1/constitution/lease")
        if problem is not None:
            error, code = problem
            if answer.status == 404 and code:  # the service's own 404, not that of a wrong address
                return None
            raise error
        return _read(answer, Lease)

    # -- releases ----------------------------------------------------------------------------------------------

    async def load(self, request: LoadRequest, key: str) -> LoadResult:
        """Put an artifact live in rings; checked in full by the service, inside its transaction.

        Args:
            request: what, where, by whose approval; ``expected_generation`` and ``fencing_token`` guard against
                anything that happened since the caller looked.
            key: ``Idempotency-Key``: ``<environment>/<update_id>/<step>``.

        Raises:
            StaleGenerationError, LeaseLostError: somebody was faster.
            NotApprovedError, EvidenceError, UntrustedError, InvalidDocumentError: refused, with all issues.
        """
        answer = await self._call(
            "POST", "/v1/constitution/load", scope="load:write", body=request, key=key, timeout=LOAD_TIMEOUT
        )
        return _read(answer, LoadResult)

    async def current(self, ring: str = "default", min_generation: int = 0) -> CurrentConstitution | None:
        """Return what a ring must obey, or None before generation 1.

        Args:
            ring: name of the ring.
            min_generation: a cache that holds an older generation is bypassed.
        """
        answer, problem = await self._send_retrying(
            "GET", "/v1/constitution", params={"ring": ring, "min_generation": str(min_generation)}
        )
        if problem is not None:
            error, code = problem
            if code == "no-constitution":
                return None
            raise error
        return _read(answer, CurrentConstitution)

    async def releases(self) -> list[Release]:
        """Return every release of the environment, newest first, with standing and delivery."""
        return [release async for release in self.history()]

    async def history(self, at_once: int = RELEASES_AT_ONCE) -> AsyncIterator[Release]:
        """Yield every release of the environment, newest first; no more than ``at_once`` of them are held."""
        params = {"limit": str(at_once)}
        while True:
            page = _read_list(await self._call("GET", "/v1/constitution/releases", params=params), Release)
            for release in page:
                yield release
            if len(page) < at_once or page[-1].generation <= 1:
                return
            params["before"] = str(page[-1].generation)

    async def release(self, generation: int) -> Release:
        """Return one release.

        Raises:
            NotFoundError: there is no such generation.
        """
        return _read(await self._call("GET", f"/v1/constitution/releases/{generation:d}"), Release)

    async def record_standing(self, generation: int, request: StandingRequest, key: str) -> Release:
        """Append what became of a release.

        Args:
            generation: of which release.
            request: the standing; ``confirmed`` only for the current generation, with the current token.
            key: ``Idempotency-Key``.

        Raises:
            LeaseLostError, ConflictError: the token is old, or the release is no longer current.
        """
        path = f"/v1/constitution/releases/{generation:d}/standing"
        return _read(await self._call("POST", path, scope="standing:write", body=request, key=key), Release)

    async def audit(self, event: AuditEvent) -> None:
        """Record a decision or refusal in the audit stream; the event's id makes it idempotent."""
        await self._call("POST", "/v1/constitution/audit", scope="audit:write", body=event)

    async def ready(self) -> ReadyReport:
        """Return what the service says about its own dependencies, also when it is not ready."""
        answer, _ = await self._send("GET", "/readyz")
        return _read(answer, ReadyReport)

    # -- the one way out ---------------------------------------------------------------------------------------

    async def _content(self, path: str, checksum: str) -> bytes:
        answer = await self._call("GET", path)
        _same(checksum_of(answer.body), checksum)
        return answer.body

    async def _call(
        self,
        method: str,
        path: str,
        *,
        scope: str | None = None,
        params: Mapping[str, str] | None = None,
        body: BaseModel | None = None,
        content: bytes | None = None,
        files: list[tuple[str, tuple[str, bytes, str]]] | None = None,
        key: str | None = None,
        timeout: httpx.Timeout = TIMEOUT,  # noqa: ASYNC109 - handed to httpx, which bounds each phase by it
    ) -> _Answer:
        headers: dict[str, str] = {}
        if body is not None:
            content = body.model_dump_json().encode()
            headers["Content-Type"] = "application/json"
        elif content is not None:
            headers["Content-Type"] = "application/octet-stream"
        if key is not None:
            headers["Idempotency-Key"] = key
        answer, problem = await self._send_retrying(
            method, path, scope=scope, params=params, content=content, files=files, headers=headers, timeout=timeout
        )
        if problem is not None:
            raise problem[0]
        return answer

    async def _send_retrying(
        self, method: str, path: str, **options: Any
    ) -> tuple[_Answer, tuple[ConstitutionError, str] | None]:
        # Every route is safe to repeat: GETs read, artifacts, evidence and blobs are named by their content, a
        # change request, an audit event by its id, and the rest carry an Idempotency-Key (docs/architecture.md).
        async for attempt in stamina.retry_context(on=_backoff, attempts=ATTEMPTS, timeout=RETRY_FOR, wait_max=2.0):
            with attempt:
                answer, problem = await self._send(method, path, **options)
                if answer.status == 503:
                    said = problem[0].message if problem else "HTTP 503"
                    where = f"{self._url.scheme}://{host_of(str(self._url))}"
                    raise _RetryableError(
                        f"constitution-service cannot serve now: {said}",
                        hint=f"curl {where}/readyz  # says which of its servers is missing",
                        wait=_retry_after(answer.headers),
                    )
                return answer, problem
        raise AssertionError  # pragma: no cover - stamina ends by returning or raising

    async def _send(
        self,
        method: str,
        path: str,
        *,
        scope: str | None = None,
        params: Mapping[str, str] | None = None,
        content: bytes | None = None,
        files: list[tuple[str, tuple[str, bytes, str]]] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: httpx.Timeout = TIMEOUT,  # noqa: ASYNC109 - handed to httpx, which bounds each phase by it
    ) -> tuple[_Answer, tuple[ConstitutionError, str] | None]:
        what = f"{method} {path}"
        sent = {"Accept-Encoding": "identity", **(headers or {})}  # compressed answers grow beyond any bound
        if scope is not None:
            sent["Authorization"] = f"Bearer {self._token(scope, what)}"
        try:
            async with self._http.stream(
                method, path, params=params, content=content, files=files, headers=sent, timeout=timeout
            ) as response:
                encoding = response.headers.get("content-encoding", "identity")
                if encoding != "identity":
                    raise UnavailableError(f"{what} was answered compressed ({encoding[:40]}), unasked")
                body = bytearray()
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > MAX_ANSWER:
                        raise UnavailableError(f"{what} was answered with more than {MAX_ANSWER} bytes")
                answer = _Answer(response.status_code, response.headers, bytes(body))
        except httpx.HTTPError as error:
            where = host_of(str(self._url))
            raise _RetryableError(
                f"constitution-service at {where} did not answer {what}: {str(error) or type(error).__name__}",
                hint="make status  # shows whether it runs; CONSTITUTION_SERVICE_URL says where it is looked for",
            ) from error
        if answer.status < 300:
            return answer, None
        return answer, error_of(answer.status, answer.body, what=what)

    @property
    def _if_known(self) -> str | None:
        """Scope of a call that is open to everybody: a token is sent only so as not to wait behind strangers."""
        return None if self._key is None else "artifacts:write"

    def _token(self, scope: str, what: str) -> str:
        if self._key is None:
            raise ForbiddenError(
                f"{what} needs a token with scope {scope}, and there is no client key",
                hint="set CLIENT_KEY_FILE to the operator's key, e.g. var/development/keys/operator.jwk",
            )
        from signatures.tokens import mint  # late: reading clients never load the signing library

        return mint(self._key, environment=self._environment, scopes=[scope], now=self._clock())


def _multipart(document: bytes, signatures: Sequence[bytes]) -> list[tuple[str, tuple[str, bytes, str]]]:
    parts = [("document", ("constitution.json", document, "application/json"))]
    parts += [
        ("signature", (f"signature-{number}", data, "application/octet-stream"))
        for number, data in enumerate(signatures, start=1)
    ]
    return parts


def _json(answer: _Answer) -> Any:
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError) as error:
        raise UnavailableError("constitution-service answered with something that is not JSON") from error


def _read(answer: _Answer, model: type[_M]) -> _M:
    try:
        return model.model_validate_json(answer.body)
    except ValidationError as error:
        raise _unreadable(model, error) from error


def _read_list(answer: _Answer, model: type[_M]) -> list[_M]:
    rows = _json(answer)
    if not isinstance(rows, list):
        raise UnavailableError(f"constitution-service answered with something that is no list of {model.__name__}")
    try:
        return [model.model_validate_json(json.dumps(row)) for row in rows]
    except ValidationError as error:
        raise _unreadable(model, error) from error


def _unreadable(model: type[BaseModel], error: ValidationError) -> UnavailableError:
    return UnavailableError(
        f"constitution-service answered with something that is no {model.__name__}: {error.error_count()} problems, "
        f"the first: {error.errors(include_input=False)[0]['msg']}",
        hint="client and service may be of different versions",
    )


def _digest(answer: _Answer) -> str:
    data = _json(answer)
    digest = data.get("digest") if isinstance(data, dict) else None
    if not isinstance(digest, str):
        raise UnavailableError("constitution-service answered without a digest")
    return digest


def _evidence_digest(record: EvidenceRecord) -> str:
    return checksum_of(rfc8785.dumps(record.model_dump(mode="json")))


def _same(found: str, expected: str) -> str:
    if found != expected:
        raise UntrustedError(f"constitution-service answered with {found} where {expected} was expected")
    return expected


def _retry_after(headers: httpx.Headers) -> float | None:
    value = headers.get("Retry-After", "")
    return min(float(value), _MAX_RETRY_AFTER) if value.isascii() and value.isdigit() else None
