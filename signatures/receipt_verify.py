"""Is a folder of the legal archive the whole story of its release? Offline, with public keys alone (invariant 9).

Receipt, manifest, files, chain, then every signed part by its own signature. Each byte counts: receipt and manifest are
taken in their one canonical form, the receipt by its signature, the manifest by its digest in the receipt, every other
file by its digest in the manifest. Once a layer is wrong, nothing is said of what rests on it.
"""

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from constitution import strict_json
from constitution.archive_manifest import listing_bytes
from constitution.checksum import checksum_of
from constitution.errors import UntrustedError
from constitution.receipt import (
    MANIFEST,
    MANIFEST_SIGNATURE,
    RECEIPT,
    RECEIPT_MANIFEST,
    UNLISTED,
    ArchivedFile,
    LaterFile,
    ReceiptManifest,
    ReceiptPredicate,
)
from constitution.release import Envelope
from constitution.trust.trust_policy import TrustPolicy
from signatures.archive_manifests import verify_manifest
from signatures.receipt_content import check_content
from signatures.receipt_report import ReceiptLines, ReceiptReport
from signatures.receipts import manifest_bytes, receipt_bytes, verify_receipt


class BrokenFileError(UntrustedError):
    """A file is not what it must be; ``offset`` is its first wrong byte, where that can be known."""

    def __init__(self, message: str, offset: int | None = None) -> None:
        super().__init__(message)
        self.offset = offset


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Receipt and manifest of another folder of the archive, unverified."""

    folder: str
    receipt: bytes
    manifest: bytes | None


def folder_name(receipt: ReceiptPredicate) -> str:
    """Return the name that the archive gives the folder of this release."""
    return f"{receipt.version or 'withdrawn'}-{receipt.generation}"


def verify_folder(
    files: Mapping[str, bytes],
    trust: TrustPolicy,
    *,
    neighbours: tuple[Neighbour, ...] = (),
    head: bytes | None = None,
    name: str = "",
    earlier: Sequence[TrustPolicy] = (),
) -> ReceiptReport:
    """Check every file of a folder against its receipt.

    Keys leave a trust policy, and what they signed in their time stays in the archive. A folder is right if all of it
    is by one of the given policies; its neighbours may be by another.

    Args:
        files: every file's bytes, by path in the folder.
        trust: whose service keys sign receipts, and everybody else's.
        neighbours: the other folders beside it: the chain, and what later receipts list of this folder.
        head: a receipt from the artifact store; the archive must hold it.
        name: of the folder, for the report.
        earlier: policies that were in force before, as the caller kept them.
    """
    reports = []
    for policy in (trust, *earlier):
        reports.append(_verify_by(policy, files, (trust, *earlier), neighbours, head, name))
        if reports[-1].valid:
            return reports[-1]
    return next((report for report in reports if report.sequence is not None), reports[0])


def _verify_by(  # noqa: PLR0917 - private
    trust: TrustPolicy,
    files: Mapping[str, bytes],
    policies: Sequence[TrustPolicy],
    neighbours: tuple[Neighbour, ...],
    head: bytes | None,
    name: str,
) -> ReceiptReport:
    lines = ReceiptLines()
    try:
        receipt = open_receipt(files.get(RECEIPT), (trust,))
    except BrokenFileError as error:
        lines.wrong(RECEIPT, error.message, error.offset)
        return lines.report(name, None, None)
    digest = checksum_of(files[RECEIPT])
    by = f"signed by {trust.environment}'s constitution-service"
    lines.right(RECEIPT, f"receipt {receipt.sequence} of generation {receipt.generation}, {by}, {receipt.sealed_at}")
    others = _verified(neighbours, policies, lines)
    _chain(receipt, digest, others, lines)
    if head is not None:
        held = {receipt.sequence: digest} | {said.sequence: found for _, said, found in others}
        check_head(held, head, policies, lines)
    try:
        manifest = open_manifest(files, receipt)
    except BrokenFileError as error:
        lines.wrong(RECEIPT_MANIFEST, error.message, error.offset)
        return lines.report(name, receipt.sequence, receipt.generation)
    count = len(manifest.files)
    lines.right(RECEIPT_MANIFEST, f"{count} files, as {receipt.archive.reported_by} reported them when it was sealed")
    good = check_files(files, manifest, _later(receipt, others), lines)
    if MANIFEST_SIGNATURE in files:  # `archive verify` demands one
        check_writer(files, folder_name(receipt), policies, lines)
    check_content(
        {path: files[path] for path in good}, receipt, frozenset(f.path for f in manifest.files), trust, lines
    )
    return lines.report(name, receipt.sequence, receipt.generation)


def open_receipt(data: bytes | None, policies: Sequence[TrustPolicy]) -> ReceiptPredicate:
    """Return what ``receipt.json`` says, by the first of the policies that pins its signer.

    Raises:
        BrokenFileError: it is missing, not canonical, or not signed by a pinned service key.
    """
    if data is None:
        raise BrokenFileError("is missing")
    try:
        envelope = Envelope.model_validate(strict_json.read(data))
    except (ValidationError, strict_json.StrictJsonError) as error:
        raise BrokenFileError("is no DSSE envelope", _unreadable(data)) from error
    if (canonical := receipt_bytes(envelope)) != data:
        raise BrokenFileError("is not in canonical form (RFC 8785)", _differs(data, canonical))
    refused: list[UntrustedError] = []
    for policy in policies:
        try:
            return verify_receipt(envelope, policy)
        except UntrustedError as error:
            refused.append(error)
    raise BrokenFileError(f"{refused[0].message}; the signature is over the whole file") from refused[0]


def open_manifest(files: Mapping[str, bytes], receipt: ReceiptPredicate) -> ReceiptManifest:
    """Return what ``receipt-manifest.json`` says.

    Raises:
        BrokenFileError: it is missing, or not the one that the receipt names.
    """
    data = files.get(RECEIPT_MANIFEST)
    if data is None:
        raise BrokenFileError("is missing")
    if checksum_of(data) != receipt.archive.manifest:
        raise BrokenFileError(
            f"is not the manifest that the receipt names ({receipt.archive.manifest})", _where(files, receipt)
        )
    try:
        manifest = ReceiptManifest.model_validate_json(data)
    except ValidationError as error:  # the service sealed a digest that it had made of a manifest of its own writing
        raise BrokenFileError("cannot be read") from error
    if (manifest.environment, manifest.generation) != (receipt.environment, receipt.generation):
        raise BrokenFileError("is of another release")
    return manifest


def check_files(
    files: Mapping[str, bytes], manifest: ReceiptManifest, later: Mapping[str, ArchivedFile], lines: ReceiptLines
) -> list[str]:
    """Compare every file with its digest; return those that are as they were sealed."""
    listed = {file.path: file for file in manifest.files}
    expected = {**later, **listed}  # a later receipt adds files; it changes none
    good = []
    for path, file in sorted(expected.items()):
        data = files.get(path)
        if data is None:
            lines.wrong(path, "is missing")
        elif len(data) != file.size:
            lines.wrong(path, f"has {len(data)} bytes, not {file.size}")
        elif checksum_of(data) != file.sha256:
            lines.wrong(path, f"was changed: it has not the digest {file.sha256}")
        else:
            good.append(path)
    for path in sorted(files.keys() - expected.keys() - UNLISTED):
        lines.wrong(path, "was added: no receipt lists it")
    check_listing(files, lines)
    if len(good) == len(expected):
        lines.right("files", f"all {len(good)} have the digests and sizes that were sealed, and there are no others")
    return good


def check_listing(files: Mapping[str, bytes], lines: ReceiptLines) -> None:
    """Compare the archive's own ``manifest.json`` with the files: it follows from them, byte for byte."""
    data = files.get(MANIFEST)
    if data is None:
        lines.wrong(MANIFEST, "is missing")
        return
    made = listing_bytes({path: checksum_of(found) for path, found in files.items() if path != MANIFEST})
    if data != made:
        lines.wrong(MANIFEST, "is not the list of the files that are here", _differs(data, made))


def check_writer(files: Mapping[str, bytes], name: str, policies: Sequence[TrustPolicy], lines: ReceiptLines) -> None:
    """Check who signed the archive's own list; it is signed anew with each commit."""
    signature = files.get(MANIFEST_SIGNATURE)
    if signature is None:
        lines.wrong(MANIFEST_SIGNATURE, "is missing")
        return
    refused: list[str] = []
    for policy in policies:
        try:
            client = verify_manifest(signature, name, files.get(MANIFEST, b""), policy)
        except UntrustedError as error:
            refused.append(error.message)
        else:
            lines.right(MANIFEST_SIGNATURE, f"{client} signed {MANIFEST}")
            return
    lines.wrong(MANIFEST_SIGNATURE, refused[0])


def _verified(
    neighbours: tuple[Neighbour, ...], policies: Sequence[TrustPolicy], lines: ReceiptLines
) -> list[tuple[Neighbour, ReceiptPredicate, str]]:
    found = []
    for other in neighbours:
        try:
            found.append((other, open_receipt(other.receipt, policies), checksum_of(other.receipt)))
        except BrokenFileError as error:
            lines.wrong("chain", f"{other.folder}/{RECEIPT}: {error.message}", error.offset)
    return found


def _chain(
    receipt: ReceiptPredicate,
    digest: str,
    others: list[tuple[Neighbour, ReceiptPredicate, str]],
    lines: ReceiptLines,
) -> None:
    for other, said, found in others:
        _beside(receipt, digest, (other.folder, said, found), lines)
    before, sequences = receipt.sequence - 1, {said.sequence for _, said, _ in others}
    if receipt.previous_receipt is None:
        lines.right("chain", "it is the first")
    elif not sequences:
        lines.right("chain", f"it follows receipt {before}; the folder stands alone, so nothing compares them")
    elif before not in sequences:
        lines.wrong("chain", f"it follows receipt {before}, which is not in this archive")
    if max(sequences, default=0) > receipt.sequence and receipt.sequence + 1 not in sequences:
        lines.wrong("chain", f"receipt {receipt.sequence + 1} is not in this archive, though later ones are")


def _beside(
    receipt: ReceiptPredicate, digest: str, other: tuple[str, ReceiptPredicate, str], lines: ReceiptLines
) -> None:
    folder, said, found = other
    if said.generation == receipt.generation or said.sequence == receipt.sequence:
        what = f"receipt {said.sequence} of generation {said.generation}"
        lines.wrong("chain", f"{folder} holds {what}, too: one of the folders is a copy")
    elif said.sequence == receipt.sequence - 1:
        if found != receipt.previous_receipt:
            lines.wrong("chain", f"receipt {said.sequence} in {folder} is not the one that this one follows")
        else:
            lines.right("chain", f"it follows receipt {said.sequence}, of generation {said.generation}")
    elif said.sequence == receipt.sequence + 1:
        if said.previous_receipt != digest:
            lines.wrong("chain", f"receipt {said.sequence} in {folder} follows another receipt {receipt.sequence}")
        else:
            lines.right("chain", f"receipt {said.sequence}, of generation {said.generation}, follows it")


def check_head(held: Mapping[int, str], head: bytes, policies: Sequence[TrustPolicy], lines: ReceiptLines) -> None:
    """Check that the archive holds the newest receipt, and every one before it.

    Args:
        held: the digest of each verified receipt of the archive, by its number.
        head: the newest, as the artifact store has it.
        policies: whose service keys sign receipts.
        lines: takes what is found.
    """
    try:
        newest = open_receipt(head, policies)
    except BrokenFileError as error:
        lines.wrong("head", error.message, error.offset)
        return
    missing = sorted(set(range(1, newest.sequence + 1)) - held.keys())
    what = f"receipt {newest.sequence}, of generation {newest.generation}"
    if held.get(newest.sequence) != checksum_of(head):
        lines.wrong("head", f"{what}, is not in this archive: it is not the newest")
    elif missing:
        lines.wrong("head", f"receipts up to {newest.sequence} were sealed, and {missing[0]} is not in this archive")
    else:
        lines.right("head", f"{what}, is in this archive, and so is every one before it")


def _later(receipt: ReceiptPredicate, others: list[tuple[Neighbour, ReceiptPredicate, str]]) -> dict[str, ArchivedFile]:
    """Return what later receipts list of this release's folder: how it was undone."""
    found: dict[str, ArchivedFile] = {}
    for other, said, _ in sorted(others, key=lambda item: item[1].sequence):
        if said.sequence <= receipt.sequence or other.manifest is None:
            continue
        if checksum_of(other.manifest) != said.archive.manifest:
            continue  # the report of that folder says so
        manifest = ReceiptManifest.model_validate_json(other.manifest)
        found |= {file.path: file for file in manifest.later if file.folder == folder_name(receipt)}
    return found


def _where(files: Mapping[str, bytes], receipt: ReceiptPredicate) -> int | None:
    """Return the first wrong byte of the manifest: against one made of the files, else by itself; None: unknown."""
    data, itself = files[RECEIPT_MANIFEST], None
    later: tuple[LaterFile, ...] = ()
    try:
        found = ReceiptManifest.model_validate(strict_json.read(data))
        later, itself = found.later, manifest_bytes(found)
    except (ValidationError, strict_json.StrictJsonError):
        pass
    with contextlib.suppress(ValidationError):  # a name that no manifest lists
        made = manifest_bytes(
            ReceiptManifest(
                environment=receipt.environment,
                generation=receipt.generation,
                files=tuple(
                    ArchivedFile(path=path, sha256=checksum_of(content), size=len(content))
                    for path, content in sorted(files.items())
                    if path not in UNLISTED
                ),
                later=later,
            )
        )
        if checksum_of(made) == receipt.archive.manifest:
            return _differs(data, made)
    if itself is None:
        return _unreadable(data)
    return None if itself == data else _differs(data, itself)


def _unreadable(data: bytes) -> int | None:
    """Return the first byte that is no UTF-8 or no JSON, or None if there is none."""
    try:
        text = data.decode()
        json.loads(text)
    except UnicodeDecodeError as error:
        return error.start
    except json.JSONDecodeError as error:
        return len(text[: error.pos].encode())
    except RecursionError:
        return None
    return None


def _differs(data: bytes, wanted: bytes) -> int:
    """Return the first byte in which two texts differ."""
    for number, (one, other) in enumerate(zip(data, wanted, strict=False)):
        if one != other:
            return number
    return min(len(data), len(wanted))
