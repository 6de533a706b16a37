"""How constitution-service is called: one way out, with bounds, repeats and tokens (service.py says which calls).

Shared by every call of the client; independent of their meaning.
"""

import json
import ssl
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import httpx
import stamina
from pydantic import BaseModel, ValidationError

from constitution.addresses import host_of
from constitution.checksum import checksum_of
from constitution.errors import (
    ConstitutionError,
    ForbiddenError,
    InvalidRequestError,
    UnavailableError,
    UntrustedError,
)
from constitution_client.problems import error_of
from signatures.authorities import authorities

if TYPE_CHECKING:
    from signatures.tokens import ClientKey

ATTEMPTS = 4
RETRY_FOR = timedelta(seconds=15)  # below the shortest activity timeout, so that the caller's own policy decides
MAX_ANSWER = 64 * 1024 * 1024  # bytes: an attachment of evidence is the largest thing served, up to 32 MiB
TIMEOUT = httpx.Timeout(connect=3.0, read=10.0, write=10.0, pool=5.0)  # seconds
LOAD_TIMEOUT = httpx.Timeout(connect=3.0, read=30.0, write=10.0, pool=5.0)  # verifies up to 16 signatures under a lock
_MAX_RETRY_AFTER = 5.0  # seconds: a server may ask us to wait, not to hang

_M = TypeVar("_M", bound=BaseModel)


class Answer:
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


class Transport:
    """The connection to one constitution-service, as one caller; ``ConstitutionServiceClient`` adds the calls.

    Args:
        base_url: e.g. ``http://127.0.0.1:8080``; no path.
        client_key: mints the tokens of changing calls; None for a client that only reads.
        environment: bound into every token.
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
            # Without TLS no authority is asked for: reading the list would take each start 15 ms of CPU.
            verify=authorities() if url.scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
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

    # -- the one way out ---------------------------------------------------------------------------------------

    async def _content(self, path: str, checksum: str) -> bytes:
        answer = await self._call("GET", path)
        same(checksum_of(answer.body), checksum)
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
    ) -> Answer:
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
    ) -> tuple[Answer, tuple[ConstitutionError, str] | None]:
        # Every route is safe to repeat: GETs read, artifacts, evidence and blobs are named by their content, a
        # change request, an audit event by its id, the end of an update happens once, and the rest carry an
        # Idempotency-Key (docs/http-api.md).
        async for attempt in stamina.retry_context(on=_backoff, attempts=ATTEMPTS, timeout=RETRY_FOR, wait_max=2.0):
            with attempt:
                answer, problem = await self._send(method, path, **options)
                if answer.status == 503:
                    problem_text = problem[0].message if problem else "HTTP 503"
                    where = f"{self._url.scheme}://{host_of(str(self._url))}"
                    raise _RetryableError(
                        f"constitution-service cannot serve now: {problem_text}",
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
    ) -> tuple[Answer, tuple[ConstitutionError, str] | None]:
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
                answer = Answer(response.status_code, response.headers, bytes(body))
        except httpx.HTTPError as error:
            where = host_of(str(self._url))
            raise _RetryableError(
                f"constitution-service at {where} did not answer {what}: {str(error) or type(error).__name__}",
                hint="make status  # shows whether it runs; CONSTITUTION_SERVICE_URL says where it is looked for",
            ) from error
        if answer.status < 300:
            return answer, None
        return answer, error_of(answer.status, answer.body, what=what)

    def _if_has_key(self, scope: str) -> str | None:
        """Return the scope of a call that is open to everybody: a token is sent only so as to be treated better."""
        return None if self._key is None else scope

    def _token(self, scope: str, what: str) -> str:
        if self._key is None:
            raise ForbiddenError(
                f"{what} needs a token with scope {scope}, and there is no client key",
                hint="set CLIENT_KEY_FILE to the operator's key, e.g. var/development/keys/operator.jwk",
            )
        from signatures.tokens import mint  # late: reading clients never load the signing library

        return mint(self._key, environment=self._environment, scopes=[scope], now=self._clock())


def _json(answer: Answer) -> Any:
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError) as error:
        raise UnavailableError("constitution-service answered with something that is not JSON") from error


def read(answer: Answer, model: type[_M]) -> _M:
    """Return an answer as a model.

    Raises:
        UnavailableError: it is none.
    """
    try:
        return model.model_validate_json(answer.body)
    except ValidationError as error:
        raise _unreadable(model, error) from error


def read_list(answer: Answer, model: type[_M]) -> list[_M]:
    """Return an answer as a list of models.

    Raises:
        UnavailableError: it is none.
    """
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


def digest_of(answer: Answer) -> str:
    """Return the digest that an answer names.

    Raises:
        UnavailableError: it names none.
    """
    data = _json(answer)
    digest = data.get("digest") if isinstance(data, dict) else None
    if not isinstance(digest, str):
        raise UnavailableError("constitution-service answered without a digest")
    return digest


def same(found: str, expected: str) -> str:
    """Return the expected value.

    Raises:
        UntrustedError: another value was found.
    """
    if found != expected:
        raise UntrustedError(f"constitution-service answered with {found} where {expected} was expected")
    return expected


def _retry_after(headers: httpx.Headers) -> float | None:
    value = headers.get("Retry-After", "")
    return min(float(value), _MAX_RETRY_AFTER) if value.isascii() and value.isdigit() else None
