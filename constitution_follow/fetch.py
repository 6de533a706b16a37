"""Reads ``GET /v1/constitution`` for one ring. Bounded in time and size; verifies nothing."""

from dataclasses import dataclass
from http import HTTPStatus

import httpx

from constitution.addresses import host_of
from constitution.errors import UnavailableError, UntrustedError
from constitution.release import CurrentConstitution
from constitution.untrusted import read_message

MAX_ANSWER_BYTES = 32 * 1024 * 1024  # 1 MiB document, 16 signatures of 1 MiB, both escaped for JSON
TIMEOUT = httpx.Timeout(3.0, connect=1.0)  # seconds; a service on its feet answers in milliseconds


@dataclass(frozen=True, slots=True)
class Unchanged:
    """304 (RFC 9110 §15.4.5): the release of the ETag was still current ``age_s`` seconds ago."""

    age_s: int


@dataclass(frozen=True, slots=True)
class Absent:
    """404 ``no-constitution``: the environment has no release yet. Unsigned: it can never undo one."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """200: an answer to be verified; the service knew ``age_s`` seconds ago that it was current."""

    current: CurrentConstitution
    etag: str | None
    age_s: int


class ConstitutionSource:
    """One ring of constitution-service over HTTP.

    Args:
        client: without redirects; closed by its owner.
        base_url: of constitution-service.
        ring: whose current constitution to read.
    """

    def __init__(self, client: httpx.AsyncClient, *, base_url: str, ring: str) -> None:
        self._client = client
        self._url = f"{base_url.rstrip('/')}/v1/constitution"
        self._ring = ring

    async def fetch(
        self, *, etag: str | None, min_generation: int, certain: bool = False
    ) -> Unchanged | Absent | Fetched:
        """Read what is current.

        Args:
            etag: of the answer that is obeyed; None asks for the whole answer.
            min_generation: a cache below it is bypassed; only a verified number may be given here.
            certain: whether every cache is bypassed.

        Raises:
            UnavailableError: no answer in time, or the service says that it cannot.
            UntrustedError: an answer that cannot be read as a current constitution.
        """
        parameters: dict[str, str | int] = {"ring": self._ring}
        if min_generation:
            parameters["min_generation"] = min_generation
        headers = {"If-None-Match": etag} if etag else {}
        if certain:
            headers["Cache-Control"] = "no-cache"
        headers["Accept-Encoding"] = "identity"  # a compressed answer could grow beyond any bound while it is unpacked
        try:
            async with self._client.stream(
                "GET", self._url, params=parameters, headers=headers, timeout=TIMEOUT
            ) as response:
                body = await _bounded(response)
        except httpx.HTTPError as error:
            raise UnavailableError(f"{host_of(self._url)}: {type(error).__name__}: {error}") from error
        return _understood(response, body, self._url)


async def _bounded(response: httpx.Response) -> bytes:
    parts, size = [], 0
    async for part in response.aiter_raw():
        size += len(part)
        if size > MAX_ANSWER_BYTES:
            raise UntrustedError(f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
        parts.append(part)
    return b"".join(parts)


def _understood(response: httpx.Response, body: bytes, url: str) -> Unchanged | Absent | Fetched:
    if response.status_code == HTTPStatus.NOT_MODIFIED:
        return Unchanged(_age(response))
    if response.status_code == HTTPStatus.NOT_FOUND and b"no-constitution" in body[:4096]:
        return Absent()
    if response.status_code != HTTPStatus.OK:
        raise UnavailableError(f"{host_of(url)} answered {response.status_code}: {body[:300]!r}")
    try:
        current = read_message(CurrentConstitution, body)
    except ValueError as error:
        raise UntrustedError(f"{host_of(url)} answered with something that is no current constitution") from error
    return Fetched(current=current, etag=response.headers.get("etag"), age_s=_age(response))


def _age(response: httpx.Response) -> int:
    """Return how long ago the answer was known to be right (RFC 9111 §5.1); 0 where nobody says so.

    Raises:
        UntrustedError: the header is no number of seconds.
    """
    text = response.headers.get("age", "0")
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise UntrustedError("the answer's Age is no number of seconds")
    return int(text)
