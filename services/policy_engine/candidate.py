"""Reads a candidate document from constitution-service and verifies its signatures before any use.

A document that is replayed reveals one bit per rule about each recorded request. So a candidate must be signed as if it
were to go live: only the trust policy's maintainers can ask.
"""

import asyncio
import base64
import binascii
from datetime import UTC, datetime
from http import HTTPStatus

import httpx
from pydantic import ValidationError

from adapters.environment_config import EnvironmentConfig
from constitution.addresses import host_of
from constitution.api import ArtifactSignatures
from constitution.checksum import checksum_of
from constitution.errors import NotFoundError, UnavailableError, UntrustedError
from constitution.policy.document import parse
from constitution.policy.rules import Policy
from constitution.release import Kind
from signatures.verify import verify_document

MAX_DOCUMENT_BYTES = 1024 * 1024
MAX_SIGNATURES_BYTES = 24 * 1024 * 1024  # 16 files of 1 MiB in base64
TIMEOUT = httpx.Timeout(3.0, connect=1.0)  # seconds; a service on its feet answers in milliseconds


class Candidates:
    """Fetches candidates.

    Args:
        client: without redirects; closed by its owner.
        base_url: of constitution-service.
        config: environment and pinned trust policy.
    """

    def __init__(self, client: httpx.AsyncClient, *, base_url: str, config: EnvironmentConfig) -> None:
        self._client = client
        self._base_url = base_url.rstrip("/")
        self._config = config

    async def compiled(self, checksum: str) -> Policy:
        """Return a candidate's compiled rules.

        Raises:
            NotFoundError: constitution-service has no such artifact.
            UnavailableError: it does not answer.
            UntrustedError: other bytes than the checksum's, too few maintainers' signatures, or another environment.
            InvalidDocumentError: the document is no constitution that this version can obey.
        """
        document = await self._get(f"/v1/constitution/artifacts/{checksum}", MAX_DOCUMENT_BYTES)
        signatures = await self._get(f"/v1/constitution/artifacts/{checksum}/signatures", MAX_SIGNATURES_BYTES)
        return await asyncio.to_thread(self._verified, checksum, document, signatures)

    def _verified(self, checksum: str, document: bytes, answer: bytes) -> Policy:
        if checksum_of(document) != checksum:
            raise UntrustedError("constitution-service answered with other bytes than the checksum names")
        try:
            files = [
                base64.b64decode(file, validate=True)
                for file in ArtifactSignatures.model_validate_json(answer).signatures
            ]
        except (ValidationError, binascii.Error) as error:
            raise UntrustedError("constitution-service answered with something that is no signatures") from error
        report = verify_document(document, files, self._config.trust, datetime.now(UTC))
        report.require(1)  # what nobody has signed is not parsed
        candidate = parse(document)
        report.require(self._config.trust.thresholds.for_document(Kind.UPDATE, first=candidate.previous is None))
        environment = self._config.name
        if candidate.environment != environment:
            raise UntrustedError(f"the candidate is for {candidate.environment!r}, this is {environment!r}")
        return Policy.compile(candidate)

    async def _get(self, path: str, limit: int) -> bytes:
        url = self._base_url + path
        body = bytearray()
        try:
            async with self._client.stream(
                "GET", url, timeout=TIMEOUT, headers={"Accept-Encoding": "identity"}
            ) as response:
                async for part in response.aiter_raw():
                    body += part
                    if len(body) > limit:
                        raise UntrustedError(f"{path} is larger than {limit} bytes")
        except httpx.HTTPError as error:
            raise UnavailableError(f"{host_of(url)}: {type(error).__name__}: {error}") from error
        if response.status_code == HTTPStatus.NOT_FOUND:
            raise NotFoundError(
                "the candidate is not in the artifact store", hint="push the document and its signature"
            )
        if response.status_code != HTTPStatus.OK:
            raise UnavailableError(f"{host_of(url)} answered {response.status_code}: {bytes(body[:300])!r}")
        return bytes(body)
