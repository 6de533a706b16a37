"""Every signed part of a release's folder, by its own signature, against the receipt that names it."""

from collections.abc import Callable, Iterator, Mapping

import rfc8785

from constitution.api import ChangeRequestRecord, EvidenceRecord
from constitution.archived_outcome import ArchivedOutcome, contradictions
from constitution.checksum import checksum_of
from constitution.errors import UntrustedError
from constitution.events import UpdatedEvent
from constitution.receipt import DecisionFact, ReceiptPredicate
from constitution.release import Envelope, Kind, ReleasePredicate
from constitution.trust.attestation import SyncPredicate, WatchPredicate
from constitution.trust.fleet import FleetReport
from constitution.trust.trust_policy import TrustPolicy
from constitution.untrusted import read_message
from signatures.attestations import verify_attestation
from signatures.audit_chain import verify_head
from signatures.dsse import envelope_digest
from signatures.receipt_report import ReceiptLines
from signatures.statements import verify_approval, verify_change_request, verify_order, verify_release
from signatures.verify import verify_document

Check = Callable[[], Iterator[tuple[str, str]]]


def check_content(
    files: Mapping[str, bytes],
    receipt: ReceiptPredicate,
    sealed: frozenset[str],
    trust: TrustPolicy,
    lines: ReceiptLines,
) -> None:
    """Check each signed part.

    Args:
        files: those whose bytes are as they were sealed.
        receipt: verified.
        sealed: the paths of its own manifest; the others came later.
        trust: whose signatures count.
        lines: takes what is found.
    """
    content = _Content(files, receipt, sealed, trust)
    checks: dict[str, Check] = {
        "release-statement.json": content.statement,
        "document.json": content.document,
        "change-request.json": content.change_request,
        "approvals": content.decisions,
        "reissues": content.reissues,
        "evidence": content.evidence,
        "attestations": content.attestations,
        "orders": content.orders,
        "events": content.events,
        "audit head": content.audit_heads,
        "histories": content.histories,
        "outcomes": content.outcomes,
    }
    for what, check in checks.items():
        try:
            for where, message in check():
                lines.right(where, message)
        except (UntrustedError, ValueError) as error:  # ValueError: it cannot be read
            lines.wrong(what, error.message if isinstance(error, UntrustedError) else f"cannot be read: {error}"[:300])


class _Content:
    """The parts of one folder. Each check yields (file, who and what), or raises UntrustedError."""

    def __init__(
        self, files: Mapping[str, bytes], receipt: ReceiptPredicate, sealed: frozenset[str], trust: TrustPolicy
    ) -> None:
        self._files = files
        self._receipt = receipt
        self._sealed = sealed
        self._trust = trust
        self._statement: ReleasePredicate | None = None

    def statement(self) -> Iterator[tuple[str, str]]:
        envelope = self._envelope("release-statement.json")
        found, said = verify_release(envelope, self._trust), self._receipt
        _same("its digest", envelope_digest(envelope), said.statement)
        for name in ("generation", "kind", "version", "checksum", "previous", "update_id", "effective_at", "evidence"):
            _same(name, getattr(found, name), getattr(said, name))
        _same("rings", sorted(found.rings), sorted(said.rings))
        _same("approvals", sorted(found.approvals), sorted(fact.sha256 for fact in said.decisions))
        _same("reissues", sorted(found.reissues), sorted(fact.sha256 for fact in said.reissues))
        _same("signatures", found.signatures, tuple(fact.sha256 for fact in said.signatures))
        self._statement = found
        yield "release-statement.json", f"constitution-service put generation {said.generation} in force"

    def document(self) -> Iterator[tuple[str, str]]:
        said = self._receipt
        if said.checksum is None:
            if "document.json" in self._files:
                raise UntrustedError("is here, though the release withdrew the constitution")
            return
        data = self._file("document.json")
        _same("its checksum", checksum_of(data), said.checksum)
        yield "document.json", f"version {said.version}, {said.checksum}"
        at = said.effective_at
        if self._statement is not None and self._statement.signatures_at is not None:
            at = self._statement.signatures_at
        named = {checksum_of(found): path for path, found in self._below("signatures/")}
        for fact in said.signatures:
            path = named.get(fact.sha256)
            if path is None:
                raise UntrustedError(f"the signature {fact.sha256} is not here")
            signers = verify_document(data, [self._files[path]], self._trust, at).signers
            if fact.person is not None and fact.person not in signers:
                raise UntrustedError(f"{path} does not verify as the signature of {fact.person}")
            yield path, f"{fact.person or 'nobody who counts'} signed the document"

    def change_request(self) -> Iterator[tuple[str, str]]:
        fact = self._receipt.change_request
        if fact is None:
            return
        record = read_message(ChangeRequestRecord, self._file("change-request.json"))
        request = verify_change_request(record.envelope, self._trust, record.created_at)
        _same("its digest", envelope_digest(record.envelope), fact.sha256)
        _same("its text", request, record.request)
        _same("its content", (request.id, request.author, request.reason), (fact.id, fact.author, fact.reason))
        yield "change-request.json", f"{fact.author} asked for it as {fact.id}"

    def decisions(self) -> Iterator[tuple[str, str]]:
        named = self._envelopes("approvals/")
        for fact in self._receipt.decisions:
            path, envelope = _named(named, fact.sha256, "decision")
            if fact.person is None:
                yield path, "did not verify any more when the receipt was sealed"
                continue
            _same(f"the signer of {path}", self._decider(envelope, fact), (fact.person, fact.decision, fact.reason))
            yield path, f"{fact.person} signed: {fact.decision}"

    def reissues(self) -> Iterator[tuple[str, str]]:
        named = self._envelopes("reissues/")
        for fact in self._receipt.reissues:
            path, envelope = _named(named, fact.sha256, "reissue")
            if fact.person is None:
                yield path, "did not verify any more when the receipt was sealed"
                continue
            person, override = verify_approval(envelope, self._trust, self._receipt.effective_at)
            _same(f"the signer of {path}", (person, override.reason), (fact.person, fact.reason))
            if override.kind is not Kind.REISSUE or override.checksum != self._receipt.checksum:
                raise UntrustedError(f"{path} is no reissue of this document")
            yield path, f"{person} let it come again"

    def _decider(self, envelope: Envelope, fact: DecisionFact) -> tuple[str, str, str]:
        if fact.decision in {"approve", "deny"}:
            person, approval = verify_approval(envelope, self._trust, self._receipt.effective_at)
            return person, approval.decision.value, approval.reason
        person, order = verify_order(envelope, self._trust, self._receipt.effective_at)
        return person, order.order, order.reason

    def evidence(self) -> Iterator[tuple[str, str]]:
        said = self._receipt
        if said.evidence is not None:
            record = read_message(EvidenceRecord, self._file("evidence/evidence.json"))
            _same("its digest", checksum_of(rfc8785.dumps(record.model_dump(mode="json"))), said.evidence)
            there = {checksum_of(data) for _, data in self._below("evidence/")}
            for suite in record.suites:
                if suite.junit not in there:
                    raise UntrustedError(f"the results of the suite {suite.name} ({suite.junit}) are not here")
            counts = ", ".join(f"{suite.name} {suite.tests} tests" for suite in record.suites)
            yield "evidence/evidence.json", f"the regression gate: {counts}"
        if said.watch is not None:
            found = [path for path, data in self._below("evidence/watch-") if checksum_of(data) == said.watch.evidence]
            yield (
                found[0] if found else "evidence",
                (f"what the watch saw, {said.watch.evidence}" + ("" if found else " (not archived)")),
            )

    def attestations(self) -> Iterator[tuple[str, str]]:
        said, named = self._receipt, self._envelopes("attestations/")
        for fact in said.attestations:
            path, envelope = _named(named, fact.sha256, f"attestation of the {fact.what}")
            found = verify_attestation(envelope, self._trust)
            text = f"{fact.assessor} saw the {fact.what}"
            if isinstance(found, SyncPredicate) and said.targets and said.targets.attestation == fact.sha256:
                _same("what each target obeyed", found.targets, said.targets.targets)
                _same("what the targets came to", found.fleet, said.targets.fleet)
                _same("what the target sources came to", found.discovered, said.targets.discovered)
                obeyed, asked = found.counts()
                text += f": {obeyed:,} of {asked:,} targets obeyed"
                for fleet in found.listings():
                    text += self._listed(fleet)
            if isinstance(found, WatchPredicate) and said.watch and said.watch.attestation == fact.sha256:
                _same("its verdict", (found.verdict, found.evidence), (said.watch.verdict, said.watch.evidence))
                text += f": {found.verdict.value}"
            yield path, text

    def _listed(self, fleet: FleetReport) -> str:
        """Compare the list of every target, which is named by its digest alone, with what was signed about it."""
        data = next((data for _, data in self._below("evidence/targets-") if checksum_of(data) == fleet.listing), None)
        if data is None:
            return f"; the list of {fleet.asked.count:,} of them, {fleet.listing}, is not archived"
        _same("what the list of targets comes to", FleetReport.of_listing(data), fleet)
        return f"; {fleet.asked.count:,} of them are listed in evidence/"

    def orders(self) -> Iterator[tuple[str, str]]:
        named = self._envelopes("orders/")
        for fact in self._receipt.orders:
            if fact.sha256 is None:
                yield "orders", f"an unsigned {fact.verb}"
                continue
            path, envelope = _named(named, fact.sha256, "order")
            person, order = verify_order(envelope, self._trust, fact.at)
            _same(f"the signer of {path}", (person, order.order), (fact.person, fact.verb))
            yield path, f"{person} ordered: {fact.verb}"

    def events(self) -> Iterator[tuple[str, str]]:
        for path, data in self._below("event-"):
            event = read_message(UpdatedEvent, data)
            verify_release(event.statement, self._trust)
            _same(f"the statement in {path}", envelope_digest(event.statement), self._receipt.statement)
            yield path, f"tenant {event.tenant} was told"

    def audit_heads(self) -> Iterator[tuple[str, str]]:
        known = self._receipt.audit_head
        for path, data in self._below("audit-head-"):
            head = verify_head(read_message(Envelope, data), self._trust)
            earlier = head.sequence <= known.sequence
            if earlier != (path in self._sealed) and head.sequence != known.sequence:
                raise UntrustedError(f"{path} is of event {head.sequence}; the receipt was sealed at {known.sequence}")
            if head.sequence == known.sequence:
                _same(f"the event that {path} names", head.hash, known.hash)
            yield path, f"the audit stream reached {head.sequence}; {known.sequence} when the receipt was sealed"

    def histories(self) -> Iterator[tuple[str, str]]:
        sealed = {path for path in self._sealed if path.startswith("histories/")}
        _same("the histories", {file.path for file in self._receipt.archive.histories}, sealed)
        for file in self._receipt.archive.histories:
            if (data := self._files.get(file.path)) is not None:
                _same(f"the digest of {file.path}", checksum_of(data), file.sha256)
                yield file.path, f"closed, as {self._receipt.archive.reported_by} reported it"

    def outcomes(self) -> Iterator[tuple[str, str]]:
        for path, data in self._below("outcome-"):
            said = ArchivedOutcome.model_validate_json(data)
            if path != f"outcome-{said.outcome}.json":
                raise UntrustedError(f"{path} tells of another outcome: {said.outcome}")
            if path not in self._sealed:  # it came later: the receipt that lists it is another release's
                continue
            wrong = contradictions(said, self._receipt)
            if wrong:
                raise UntrustedError(f"{path} says otherwise than the receipt: {', '.join(wrong)}")
            yield path, said.outcome.replace("_", " ")

    def _file(self, path: str) -> bytes:
        if path not in self._files:
            raise UntrustedError(f"{path} is not here, or was changed")
        return self._files[path]

    def _envelope(self, path: str) -> Envelope:
        return read_message(Envelope, self._file(path))

    def _below(self, prefix: str) -> list[tuple[str, bytes]]:
        return [(path, data) for path, data in sorted(self._files.items()) if path.startswith(prefix)]

    def _envelopes(self, prefix: str) -> dict[str, tuple[str, Envelope]]:
        found = ((path, read_message(Envelope, data)) for path, data in self._below(prefix))
        return {envelope_digest(envelope): (path, envelope) for path, envelope in found}


def _named(named: Mapping[str, tuple[str, Envelope]], digest: str, what: str) -> tuple[str, Envelope]:
    if digest not in named:
        raise UntrustedError(f"the {what} {digest} is not here, or was changed")
    return named[digest]


def _same(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise UntrustedError(f"{what} is {found}, not {wanted} as the receipt says"[:500])
