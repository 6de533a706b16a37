"""What became of a release, as its folder in the legal archive has it: ``outcome-<outcome>.json``. Pure."""

from typing import Literal

from constitution.checksum import Checksum
from constitution.model import Model
from constitution.past import Past, Stood
from constitution.receipt import ReceiptPredicate
from constitution.release import Kind, Release, Standing, StandingRecord, Verdict

UNDONE: Literal["rolled_back"] = "rolled_back"
ReleaseOutcome = Literal["completed", "rolled_back", "restored", "withdrawn"]


class ArchivedOutcome(Model):
    """One outcome of a release; reason, verdict and approvers are those of constitution-service's record."""

    outcome: str
    verdict: Verdict | None
    reason: str
    approvers: tuple[str, ...]
    watch_evidence: Checksum | None


def outcome_of(kind: Kind, standing: Standing) -> ReleaseOutcome:
    """Return the archive's name of a standing: of its file, and in the change log.

    A withdrawal restores nothing: no constitution is in force after it.
    """
    if standing is not Standing.CONFIRMED:
        return UNDONE
    made: dict[Kind, ReleaseOutcome] = {Kind.ROLLBACK: "restored", Kind.WITHDRAW: "withdrawn"}
    return made.get(kind, "completed")


def record_of(release: Release | Past | ReceiptPredicate, outcome: str) -> StandingRecord | Stood | None:
    """Return the newest standing that is this outcome: one release may be completed, and undone later."""
    found = [record for record in release.standings if outcome_of(release.kind, record.standing) == outcome]
    return found[-1] if found else None


def is_backed(release: Release | ReceiptPredicate, outcome: str) -> bool:
    """Say whether the service's own record says this outcome.

    An undo says by its kind what it did, also when a newer release replaced it before it was confirmed.
    """
    done = release.kind.undoes and outcome == outcome_of(release.kind, Standing.CONFIRMED)
    return done or record_of(release, outcome) is not None


def contradictions(said: ArchivedOutcome, receipt: ReceiptPredicate) -> tuple[str, ...]:
    """Return what an outcome says otherwise than the receipt that lists it.

    A stolen worker writes the file and reports it; the receipt's standings and decisions are the service's own.
    """
    if not is_backed(receipt, said.outcome):
        return (f"the outcome {said.outcome}, which no standing of the receipt is",)
    record, found = record_of(receipt, said.outcome), []
    if said.reason != (record.reason if record else receipt.reason):
        found.append("the reason")
    if record and record.verdict and said.verdict is not record.verdict:
        found.append("the verdict")
    known = {fact.person for fact in receipt.decisions} | set(receipt.undone_by.by if receipt.undone_by else ())
    if None not in known and not set(said.approvers) <= known:  # None: one that did not verify any more
        found.append("who approved")
    return tuple(found)
