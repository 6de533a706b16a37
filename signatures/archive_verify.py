"""Is a legal archive whole? Every folder, the chain between their receipts, the change log; with public keys alone.

A folder with a receipt is what constitution-service sealed (signatures/receipt_verify.py). One without is the word of
the client that archived it: a release whose receipt is not sealed yet, or a refused update, which never gets one.
"""

import html
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from constitution import strict_json
from constitution.checksum import checksum_of
from constitution.errors import UntrustedError
from constitution.receipt import RECEIPT, ReceiptManifest, ReceiptPredicate
from constitution.release import Envelope
from constitution.trust.approval import ApprovalPredicate, BoardDecision
from constitution.trust.trust_policy import TrustPolicy
from constitution.untrusted import read_message
from signatures.receipt_report import ReceiptLines, ReceiptReport
from signatures.receipt_verify import (
    BrokenFileError,
    Neighbour,
    check_head,
    check_listing,
    check_writer,
    folder_name,
    open_receipt,
    verify_folder,
)
from signatures.statements import verify_approval, verify_release

_Found = TypeVar("_Found")
_RELEASE = re.compile(r"(?:[0-9]{1,9}\.[0-9]{1,9}\.[0-9]{1,9}|withdrawn)-([0-9]{1,16})")
_REFUSED = re.compile(r"rejected-([0-9a-f-]{36})")
_OUTCOME = re.compile(r"outcome-([a-z_]{1,20})\.json")
_ROW = re.compile(r"^\|.*<!-- ([A-Za-z0-9._/-]{1,200}) --> \|", re.MULTILINE)


class ArchiveCheck:
    """The check of one archive: ``folder`` for each, then ``whole``.

    Args:
        trust: whose keys count.
        receipts: receipt and manifest of every folder that has them.
        head: the newest receipt, from the artifact store; None: the archive's own newest is taken for it.
        earlier: policies that were in force before: what their keys signed counts, too.
    """

    def __init__(
        self,
        trust: TrustPolicy,
        receipts: Iterable[Neighbour],
        head: bytes | None = None,
        earlier: Sequence[TrustPolicy] = (),
    ) -> None:
        self._trust = trust
        self._earlier = tuple(earlier)
        self._policies = (trust, *earlier)
        self._head = head
        self._beside = {item.folder: item for item in receipts}
        self._sealed: dict[str, ReceiptPredicate] = {}
        for name, item in self._beside.items():
            try:
                self._sealed[name] = open_receipt(item.receipt, self._policies)
            except BrokenFileError:
                continue  # the report of that folder says so
        self._rows: dict[str, str] = {}
        self._generations: list[int] = []
        self._lists: dict[str, list[str]] = {}
        for name in self._sealed:
            for other in self._listed_by(name):
                self._lists.setdefault(other, []).append(name)

    def folder(self, name: str, files: Mapping[str, bytes]) -> ReceiptReport:
        """Check one folder of the archive."""
        release, refused = _RELEASE.fullmatch(name), _REFUSED.fullmatch(name)
        lines = ReceiptLines()
        if release is not None:
            self._generations.append(int(release[1]))
            self._expect(files, release[1])
            if RECEIPT in files:
                return self._with_receipt(name, files)
            self._unsealed(name, int(release[1]), files, lines)
        elif refused is not None:
            self._expect(files, refused[1])
            self._refused(name, refused[1], files, lines)
        else:
            lines.wrong(name, "is no folder that the runbook writes")
        return lines.report(name, None, int(release[1]) if release else None)

    def whole(self, change_log: bytes | None) -> ReceiptReport:
        """Check what no folder shows by itself; to be asked when every folder was checked."""
        lines = ReceiptLines()
        for what, numbers in (
            ("receipt", [receipt.sequence for receipt in self._sealed.values()]),
            ("generation", self._generations),
        ):
            twice = [number for number, count in Counter(numbers).items() if count > 1]
            missing = sorted(set(range(1, max(numbers, default=0) + 1)) - set(numbers))
            if twice:
                lines.wrong("chain", f"{what} {twice[0]} is in more than one folder")
            elif missing:
                lines.wrong("chain", f"{what} {missing[0]} is missing, though {max(numbers)} is here")
            elif numbers:
                lines.right("chain", f"{what}s 1 to {max(numbers)} are here, each once")
        if self._head is not None:
            held = {said.sequence: checksum_of(self._beside[name].receipt) for name, said in self._sealed.items()}
            check_head(held, self._head, self._policies, lines)
        self._change_log(change_log, lines)
        return lines.report("archive", None, None)

    def _with_receipt(self, name: str, files: Mapping[str, bytes]) -> ReceiptReport:
        found = self._sealed.get(name)
        # Those that say something about this one; all of them, each time, would take the square of their number.
        near = [
            other
            for other, said in self._sealed.items()
            if other != name and (found is None or abs(said.sequence - found.sequence) == 1)
        ]
        near += [other for other in self._lists.get(name, []) if other not in near and other != name]
        beside = tuple(self._beside[other] for other in near)
        report = verify_folder(files, self._trust, neighbours=beside, name=name, earlier=self._earlier)
        lines = ReceiptLines()
        lines.found += report.lines
        if found is not None and folder_name(found) != name:
            lines.wrong(RECEIPT, f"is that of the folder {folder_name(found)}")
        if all(line.what != "manifest.dsse.json" for line in report.lines):
            check_writer(files, name, self._policies, lines)
        return lines.report(name, report.sequence, report.generation)

    def _unsealed(self, name: str, generation: int, files: Mapping[str, bytes], lines: ReceiptLines) -> None:
        check_writer(files, name, self._policies, lines)
        check_listing(files, lines)
        try:
            envelope = read_message(Envelope, files.get("release-statement.json", b""))
            found = first_accepted(self._policies, lambda policy: verify_release(envelope, policy))
        except (UntrustedError, ValueError) as error:
            lines.wrong("release-statement.json", str(error) or "cannot be read")
            return
        if found.generation != generation:
            lines.wrong("release-statement.json", f"is of generation {found.generation}")
        else:
            lines.right(RECEIPT, "there is none yet: outcome and histories are on the word of the archive's writer")

    def _refused(self, name: str, update_id: str, files: Mapping[str, bytes], lines: ReceiptLines) -> None:
        check_writer(files, name, self._policies, lines)
        check_listing(files, lines)
        what = "outcome-rejected.json"
        said = _object(files.get(what))
        if said is None or said.get("update_id") != update_id or said.get("environment") != self._trust.environment:
            lines.wrong(what, f"does not say what became of {update_id}")
        elif said.get("denied_by") is None:
            lines.right(what, "refused; nobody of the board denied it")
        elif said["denied_by"] in self._deniers(files, said):
            lines.right(what, f"{said['denied_by']} signed the denial")
        else:
            lines.wrong(what, f"{said['denied_by']} has signed no denial here")

    def _deniers(self, files: Mapping[str, bytes], said: Mapping[str, Any]) -> set[str]:
        found = set()
        for path, data in files.items():
            if not path.startswith("approvals/"):
                continue
            try:
                at = datetime.fromisoformat(str(said.get("at")))
                envelope = read_message(Envelope, data)
                person, decision = self._decided(envelope, at)
            except (UntrustedError, ValueError):
                continue
            if decision.decision is BoardDecision.DENY:
                found.add(person)
        return found

    def _decided(self, envelope: Envelope, at: datetime) -> tuple[str, ApprovalPredicate]:
        return first_accepted(self._policies, lambda policy: verify_approval(envelope, policy, at))

    def _expect(self, files: Mapping[str, bytes], what: str) -> None:
        """Note the row that each outcome of a folder has in the change log, and what that row names."""
        for path, data in files.items():
            if outcome := _OUTCOME.fullmatch(path):
                document = files.get("document.json")
                checksum = checksum_of(document) if document is not None else (_object(data) or {}).get("checksum")
                self._rows[f"{self._trust.environment}/{what}/{outcome[1]}"] = str(checksum or "")

    def _change_log(self, change_log: bytes | None, lines: ReceiptLines) -> None:
        if change_log is None:
            lines.wrong("change log", "is not here")
            return
        text = change_log.replace(b"\0", b"").decode("latin-1")  # a row's key and checksum are ASCII, also in UTF-16
        rows = {row[1]: html.unescape(row[0]) for row in _ROW.finditer(text)}
        mine = {key for key in rows if key.startswith(f"{self._trust.environment}/")}
        lacking = sorted(self._rows.keys() - mine)
        strange = sorted(mine - self._rows.keys())
        other = sorted(key for key in self._rows.keys() & mine if self._rows[key] not in rows[key])
        for keys, message in (
            (lacking, "has no row"),
            (strange, "has a row of what no folder holds:"),
            (other, "names another checksum in"),
        ):
            for key in keys:
                lines.wrong("change log", f"{message} {key}")
        if not (lacking or strange or other):
            lines.right("change log", f"has the {len(self._rows)} rows of the outcomes that are here, and no others")

    def _listed_by(self, name: str) -> set[str]:
        """Return the folders of which a receipt lists files that came later."""
        manifest = self._beside[name].manifest
        if manifest is None or checksum_of(manifest) != self._sealed[name].archive.manifest:
            return set()
        return {file.folder for file in ReceiptManifest.model_validate_json(manifest).later}


def first_accepted(policies: Sequence[TrustPolicy], verify: Callable[[TrustPolicy], _Found]) -> _Found:
    """Return what the first policy that accepts it finds.

    Raises:
        UntrustedError: none does; as the first says it.
    """
    refused: list[UntrustedError] = []
    for policy in policies:
        try:
            return verify(policy)
        except UntrustedError as error:
            refused.append(error)
    raise refused[0]


def _object(data: bytes | None) -> dict[str, Any] | None:
    if data is None:
        return None
    try:
        value = strict_json.read(data)
    except strict_json.StrictJsonError:
        return None
    return value if isinstance(value, dict) else None
