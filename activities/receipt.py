"""The files of a release's receipt: what it names is gathered, listed, and sealed by constitution-service."""

import json
import shlex

from pydantic import ValidationError
from temporalio import activity

from activities.folder import ROOT, folder_of
from activities.ports import Archive, ConstitutionService
from constitution.checksum import checksum_of
from constitution.errors import NotFoundError, NotYetError, ReceiptSealedError, UnsettledError
from constitution.model import Model
from constitution.receipt import (
    MANIFEST,
    RECEIPT,
    RECEIPT_MANIFEST,
    UNLISTED,
    ArchivedFile,
    LaterFile,
    ReceiptManifest,
    ReceiptRequest,
    SealedReceipt,
)
from constitution.release import Envelope, Release
from signatures.attestations import attestation_kind
from signatures.dsse import envelope_digest
from signatures.receipts import manifest_bytes, receipt_bytes


async def sealed(
    service: ConstitutionService, archive: Archive, release: Release, histories: dict[str, bytes]
) -> dict[str, bytes]:
    """Return what belongs beside the closed histories of a release: its receipt, and the signed parts that it names.

    A receipt is never made anew: where one is archived there is nothing to add. Where one was sealed and its commit
    did not come about, the files that its manifest lists are added, and no others.

    Args:
        service: seals it.
        archive: holds the folder.
        release: whose receipt.
        histories: about to be archived, by path in the folder.

    Raises:
        NotYetError: a file of the folder is not what the archive's own manifest says.
    """
    folder = folder_of(release.version, release.generation)
    if await archive.read(f"{folder}/{RECEIPT}") is not None:
        return {}
    try:
        documents = await service.receipt_documents(release.generation)
    except NotFoundError:  # the release exists: a service from before there were receipts must not cost the histories
        activity.logger.warning("receipt_unknown_to_service", extra={"generation": release.generation})
        return {}
    named = {_attestation_path(envelope): _json(envelope) for envelope in documents.attestations}
    named |= {f"orders/{_short(envelope)}.dsse.json": _json(envelope) for envelope in documents.orders}
    named |= {f"reissues/{_short(envelope)}.dsse.json": _json(envelope) for envelope in documents.reissues}
    try:
        receipt = await _existing(service, release)
        if receipt is None:
            manifest = await _manifest(service, archive, release, histories | named)
            receipt = await service.seal_receipt(release.generation, ReceiptRequest(manifest=manifest))
    except UnsettledError as error:
        activity.logger.warning("receipt_waits", extra={"generation": release.generation, "reason": error.message})
        return {}
    except ReceiptSealedError:  # another run was faster, over other files
        receipt = await service.receipt(release.generation)
    listed = {file.path: file.sha256 for file in receipt.manifest.files}
    return {
        **{path: data for path, data in named.items() if listed.get(path) == checksum_of(data)},
        RECEIPT: receipt_bytes(receipt.envelope),
        RECEIPT_MANIFEST: manifest_bytes(receipt.manifest),
    }


async def _existing(service: ConstitutionService, release: Release) -> SealedReceipt | None:
    try:
        return await service.receipt(release.generation)
    except NotFoundError:
        return None


async def _manifest(
    service: ConstitutionService, archive: Archive, release: Release, new: dict[str, bytes]
) -> ReceiptManifest:
    folder = folder_of(release.version, release.generation)
    files = await _files(archive, folder) | new
    earlier = {release.rollback_of, release.generation - 1} - {None, 0}
    later: list[LaterFile] = []
    for generation in sorted(number for number in earlier if number is not None):
        later += await _later(service, archive, generation)
    return ReceiptManifest(
        environment=release.environment,
        generation=release.generation,
        files=tuple(_listed(path, data) for path, data in sorted(files.items())),
        later=tuple(later),
    )


async def _files(archive: Archive, folder: str) -> dict[str, bytes]:
    """Return every file of a folder that a receipt's manifest lists.

    Raises:
        NotYetError: one of them was altered, or is gone: sealing it would cover that.
    """
    known = _known(await archive.read(f"{folder}/{MANIFEST}"), folder)
    found = {}
    for path in sorted({f"{folder}/{name}" for name in known} | await archive.paths(folder)):
        name, data = path.removeprefix(f"{folder}/"), await archive.read(path)
        if name in UNLISTED:
            continue
        if data is None or checksum_of(data) != known.get(name, checksum_of(data)):
            raise NotYetError(
                f"{path} in the archive is not what {MANIFEST} says: no receipt is sealed over it",
                hint=f"git log -- {shlex.quote(path)}  # in the archive; restore the file",
            )
        found[name] = data
    return found


def _known(raw: bytes | None, folder: str) -> dict[str, str]:
    """Return what the archive's own manifest says of a folder."""
    if raw is None:
        return {}
    try:
        return {str(name): str(checksum) for name, checksum in json.loads(raw)["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotYetError(
            f"{folder}/{MANIFEST} in the archive cannot be read: no receipt is sealed over it",
            hint=f"git log -- {shlex.quote(f'{folder}/{MANIFEST}')}  # in the archive; restore the file",
        ) from error


async def _later(service: ConstitutionService, archive: Archive, generation: int) -> list[LaterFile]:
    """Return what came into the folder of an earlier release after its receipt, and is as the archive wrote it.

    What was altered there is left out: reconciliation names it, and it must not keep this release's receipt waiting.
    """
    try:
        release = await service.release(generation)
    except NotFoundError:  # a generation that was declared lost
        return []
    folder = folder_of(release.version, generation)
    raw = await archive.read(f"{folder}/{RECEIPT_MANIFEST}")
    if raw is None:
        return []
    try:
        sealed_files = {file.path for file in ReceiptManifest.model_validate_json(raw).files}
        known = _known(await archive.read(f"{folder}/{MANIFEST}"), folder)
    except (ValidationError, NotYetError):
        return []
    found = []
    for path in sorted(known.keys() - sealed_files - UNLISTED):
        data = await archive.read(f"{folder}/{path}")
        if data is not None and checksum_of(data) == known[path]:
            found.append(LaterFile(folder=folder.removeprefix(f"{ROOT}/"), **_listed(path, data).model_dump()))
    return found


def _listed(path: str, data: bytes) -> ArchivedFile:
    return ArchivedFile(path=path, sha256=checksum_of(data), size=len(data))


def _attestation_path(envelope: Envelope) -> str:
    return f"attestations/{attestation_kind(envelope)}-{_short(envelope)}.dsse.json"


def _short(envelope: Envelope) -> str:
    return envelope_digest(envelope).removeprefix("sha256:")[:12]


def _json(model: Model) -> bytes:
    return (model.model_dump_json(indent=1) + "\n").encode()
