"""Where an update's bytes are: in the store, under their checksum; or, before they are staged, in the inbox."""

import asyncio
import os
import stat
from pathlib import Path

from activities.ports import ActivityConfig, ConstitutionService
from activities.update_plan import UpdatePlan
from constitution.checksum import checksum_of
from constitution.errors import InvalidRequestError, NotFoundError, UntrustedError

MAX_FILE = 1024 * 1024  # bytes; documents and signatures have the same limit (docs/architecture.md, The document)


async def inbox_file(config: ActivityConfig, name: str) -> bytes:
    """Return the bytes of a file in the inbox, by plain name.

    The name is hostile: no path, no link, no device; at most ``MAX_FILE`` bytes.

    Raises:
        InvalidRequestError: there is no such regular file, or it is too large.
    """
    return await asyncio.to_thread(_read, config.inbox_directory, name)


def _read(inbox: Path, name: str) -> bytes:
    if not name or name.startswith(".") or "/" in name or "\0" in name:
        raise InvalidRequestError(
            f"{name!r} is no plain file name", hint="give a name inside the inbox, without a path"
        )
    try:
        # O_NONBLOCK: a pipe of that name must not hang the worker.
        descriptor = os.open(inbox / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidRequestError(
            f"the inbox has no readable file {name!r}: {error.strerror}", hint=f"copy it into {inbox}"
        ) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise InvalidRequestError(f"{name!r} in the inbox is no regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as handle:
            data = handle.read(MAX_FILE + 1)
    finally:
        os.close(descriptor)
    if len(data) > MAX_FILE:
        raise InvalidRequestError(f"{name!r} in the inbox is larger than {MAX_FILE} bytes")
    return data


async def update_files(
    service: ConstitutionService, config: ActivityConfig, update: UpdatePlan
) -> tuple[bytes, list[bytes]]:
    """Return the document and the detached signatures of an update: from the store, else from its inbox names.

    Raises:
        NotFoundError: the store has no such artifact, and the update was not started from the inbox.
        UntrustedError: the bytes are not those of the update's checksum.
        InvalidRequestError: an inbox file is gone or changed its kind.
    """
    document = await update_document(service, config, update.checksum, update.document)
    try:
        signatures = await service.artifact_signatures(update.checksum)
    except NotFoundError:
        if update.document is None:
            raise
        signatures = [await inbox_file(config, name) for name in update.signatures]
    return document, signatures


async def update_document(
    service: ConstitutionService, config: ActivityConfig, checksum: str, name: str | None
) -> bytes:
    """Return the bytes of a checksum: from the store, else from the inbox, if a name is given.

    Raises:
        NotFoundError, UntrustedError, InvalidRequestError: as ``update_files``.
    """
    try:
        document = await service.artifact(checksum)
    except NotFoundError:
        if name is None:
            raise
        document = await inbox_file(config, name)
    require_checksum(document, checksum)
    return document


def require_checksum(document: bytes, checksum: str) -> None:
    """Refuse bytes that are not those which were checked.

    Raises:
        UntrustedError: the bytes have another checksum.
    """
    found = checksum_of(document)
    if found != checksum:
        raise UntrustedError(
            f"the bytes have the checksum {found}, not {checksum}",
            hint="the file was changed after the update started: start a new update",
        )
