"""The artifact store (SomaBrain): content-addressed objects, written once, verified whenever they are read.

Local directory, S3, GCS or Azure by URL, through obstore. An object's path is its SHA-256, so a writer without a key
can only destroy bytes, never change their meaning (invariant 8): each read finds a wrong object, and the next write of
the right bytes repairs it.
"""

import asyncio
import errno
import os
import stat
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import obstore
import structlog
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, from_url

from constitution.addresses import link_of
from constitution.checksum import checksum_of
from constitution.errors import InvalidRequestError, UnavailableError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

MAX_OBJECT = 32 * 1024 * 1024  # bytes; nothing larger is ever put here, so it is damage, and not worth the memory
TIMEOUT = timedelta(seconds=15)  # whole operation; a cloud's own retries happen inside
LIST_AT_ONCE = 1000  # objects of one listing: the most that S3 returns
READS_AT_ONCE = 8  # of one process: a store that hangs holds so many threads or connections, and no more
READ_WAIT = timedelta(seconds=2)  # for a place; after it the store counts as busy
_RETRIES = 2
_LOOPBACK = ("localhost", "127.0.0.0/8", "::1")
_log = structlog.get_logger(__name__)


def document_path(checksum: str) -> str:
    """Return where a document lies: ``artifacts/sha256/<hex>/document.json``."""
    return f"artifacts/sha256/{_hex(checksum)}/document.json"


def signature_path(checksum: str, digest: str) -> str:
    """Return where one detached signature of a document lies, beside it."""
    return f"artifacts/sha256/{_hex(checksum)}/signatures/{_hex(digest)}.sig"


def blob_path(digest: str) -> str:
    """Return where an attachment of evidence lies."""
    return f"blobs/sha256/{_hex(digest)}"


def _hex(checksum: str) -> str:
    algorithm, _, digits = checksum.partition(":")
    if algorithm != "sha256" or len(digits) != 64:
        raise ValueError("not a checksum")
    return digits


class ArtifactStore:
    """Objects under their checksums.

    Args:
        url: ``file:///directory`` (made if missing), ``s3://bucket/prefix``, ``gs://…`` or ``az://…``; credentials
            come from the cloud's usual environment variables.

    Raises:
        InvalidRequestError: the URL names no store.
    """

    def __init__(self, url: str) -> None:
        self._url = link_of(url.rstrip("/"))
        self._store = _open(url)
        self._directory = Path(unquote(urlsplit(url).path)) if url.startswith("file:") else None
        self._places = asyncio.Semaphore(READS_AT_ONCE)
        self._readers = ThreadPoolExecutor(READS_AT_ONCE, thread_name_prefix="artifact-store")

    def uri(self, path: str) -> str:
        """Return an object's address for people and records."""
        return f"{self._url}/{path}"

    async def put(self, path: str, data: bytes) -> None:
        """Store bytes under a content-addressed path; the same bytes again change nothing.

        Raises:
            UnavailableError: the store did not take them in time.
        """
        async with _translated("write"):
            try:
                await obstore.put_async(self._store, path, data, mode="create")
            except AlreadyExistsError:
                if await self._read(path) == data:
                    return
                # The path is the hash of `data`, so what lies there is damage and nothing to preserve.
                _log.error("artifact_store_repaired", path=path, digest=checksum_of(data))
                await obstore.put_async(self._store, path, data, mode="overwrite")

    async def get(self, path: str, digest: str) -> bytes | None:
        """Return the object's bytes, or None if it is missing or is not what its digest says.

        Raises:
            UnavailableError: the store did not answer in time.
        """
        async with _translated("read"):
            return await self._read(path, digest)

    async def read(self, path: str) -> bytes | None:
        """Return the object of a path that is no hash of its bytes, unverified; None if there is none.

        Raises:
            UnavailableError: the store did not answer in time.
        """
        async with _translated("read"):
            return await self._read(path)

    async def replace(self, path: str, data: bytes) -> None:
        """Write bytes under a path, over any object there; the caller has judged it.

        Raises:
            UnavailableError: the store did not take them in time.
        """
        async with _translated("write"):
            await obstore.put_async(self._store, path, data, mode="overwrite")

    async def after(self, folder: str, path: str, limit: int) -> list[str]:
        """Return the paths in a folder that follow ``path`` in order, at most ``limit``, as far as the store sorts.

        Raises:
            UnavailableError: the store did not answer in time.
        """
        found: list[str] = []
        async with _translated("list"):
            async for part in obstore.list(self._store, folder, offset=path, chunk_size=LIST_AT_ONCE):
                found += [entry["path"] for entry in part]
                if len(found) >= limit:
                    break
        return sorted(found)[:limit]

    async def check(self) -> None:
        """Ask the store for an object that need not exist.

        Raises:
            UnavailableError: the store did not answer in time.
        """
        async with _translated("read"):
            await self._read("readiness")

    async def _read(self, path: str, digest: str | None = None) -> bytes | None:
        try:
            async with asyncio.timeout(READ_WAIT.total_seconds()):
                await self._places.acquire()
        except TimeoutError:
            raise UnavailableError(f"the artifact store is busy with {READS_AT_ONCE} reads; try again") from None
        if self._directory is not None:
            loop = asyncio.get_running_loop()
            reading = self._readers.submit(_read_file, self._directory / path, digest)
            # The place is free when the thread is, not when its caller has given up.
            reading.add_done_callback(lambda _: loop.call_soon_threadsafe(self._places.release))
            return await asyncio.wrap_future(reading)
        try:
            answer = await obstore.get_async(self._store, path)
            if answer.meta["size"] > MAX_OBJECT:
                _log.error("artifact_store_corrupt", path=path, bytes=answer.meta["size"])
                return None
            return await asyncio.to_thread(_intact, path, bytes(await answer.bytes_async()), digest)
        except FileNotFoundError:
            return None
        finally:
            self._places.release()


def _intact(path: str, data: bytes, digest: str | None) -> bytes | None:
    """Return the bytes if they have this digest, or none is asked for; 32 MiB take 0.1 s."""
    if digest is not None and (found := checksum_of(data)) != digest:
        _log.error("artifact_store_corrupt", path=path, expected=digest, found=found)
        return None
    return data


def _read_file(path: Path, digest: str | None) -> bytes | None:
    """Return a local object's bytes; None if nothing lies there, or what is damage: no regular file, another digest.

    obstore opens any kind of file: a pipe in place of one object held a thread of its runtime for each read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO}:  # a link, a socket
            _log.error("artifact_store_corrupt", path=str(path), found=error.strerror)
            return None
        raise
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_OBJECT:
            _log.error("artifact_store_corrupt", path=str(path), mode=stat.filemode(found.st_mode), bytes=found.st_size)
            return None
        data = b"".join(iter(lambda: file.read(MAX_OBJECT), b""))
    return _intact(str(path), data, digest) if len(data) <= MAX_OBJECT else None


@asynccontextmanager
async def _translated(act: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(TIMEOUT.total_seconds()):
            yield
    except TimeoutError as error:
        raise UnavailableError(f"the artifact store did not {act} within {TIMEOUT.total_seconds():.0f} s") from error
    except (BaseError, OSError) as error:
        reason = str(error).split("\n", 1)[0][:300]
        raise UnavailableError(f"the artifact store could not {act}: {reason}") from error


def _spare_loopback() -> None:
    """Exempt loopback from this process's proxies by ``NO_PROXY``: obstore's HTTP client has no other setting."""
    names = [name for name in (os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or "").split(",") if name]
    names += [name for name in _LOOPBACK if name not in names]
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = ",".join(names)


def _open(url: str) -> "ObjectStore":
    parts = urlsplit(url)
    try:
        if parts.scheme == "file":
            directory = Path(unquote(parts.path))
            if parts.netloc or not directory.is_absolute():
                raise InvalidRequestError("ARTIFACT_STORE_URL needs an absolute directory: file:///…")
            directory.mkdir(parents=True, exist_ok=True, mode=0o750)
            return LocalStore(directory)
        if parts.scheme not in {"s3", "gs", "az"}:
            raise InvalidRequestError("ARTIFACT_STORE_URL must start with file:///, s3://, gs:// or az://")
        _spare_loopback()
        return from_url(
            url,
            client_options={
                "timeout": timedelta(seconds=10),
                "connect_timeout": timedelta(seconds=3),
                # The endpoint's own scheme decides; options given here make obstore ignore AWS_ALLOW_HTTP.
                "allow_http": True,
            },
            retry_config={"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=10)},
        )
    except (BaseError, OSError) as error:
        reason = str(error).split("\n", 1)[0][:300]
        raise InvalidRequestError(f"ARTIFACT_STORE_URL cannot be opened: {reason}") from error
