"""A receipt as sentences: who did what, when, why, and how it ended. Pure."""

from datetime import datetime

from constitution.listing import named
from constitution.receipt import ReceiptPredicate, TargetsFact, UndoFact
from constitution.release import Kind


def story(receipt: ReceiptPredicate) -> list[str]:
    """Return what a verified receipt tells."""
    return [*_before(receipt), *_publish(receipt), *_seen(receipt), *_end(receipt), *_sealed(receipt)]


def _before(receipt: ReceiptPredicate) -> list[str]:
    said = []
    if receipt.change_request is not None:
        asked = receipt.change_request
        said.append(f"{asked.author} asked for version {receipt.version} as {asked.id}: {asked.reason}")
    signers = [fact.person for fact in receipt.signatures if fact.person is not None]
    if signers:
        said.append(f"{_names(signers)} signed the document {receipt.checksum}.")
    tested = [fact.assessor for fact in receipt.attestations if fact.what == "gate"]
    if tested:
        said.append(f"The regression gate tested it; {tested[-1]} signed the result (evidence {receipt.evidence}).")
    said += [
        f"{fact.person or 'Somebody whose signature does not verify any more'} decided: {fact.decision}. {fact.reason}"
        for fact in receipt.decisions
    ]
    said += [
        f"{fact.person or 'Somebody whose signature does not verify any more'} let it come again after it, or its "
        f"rules, had been undone as harmful. {fact.reason}"
        for fact in receipt.reissues
    ]
    return said


def _publish(receipt: ReceiptPredicate) -> list[str]:
    rings = ", ".join(receipt.rings)
    what = {
        Kind.UPDATE: f"version {receipt.version}",
        Kind.REISSUE: f"version {receipt.version}, once more",
        Kind.ROLLBACK: f"version {receipt.version}, which had been confirmed before",
        Kind.WITHDRAW: "no constitution: every request is denied",
    }[receipt.kind]
    where = f"environment {receipt.environment}, ring {rings}"
    when = _when(receipt.effective_at)
    said = [f"On {when} generation {receipt.generation} put in force {what} ({where}). Reason: {receipt.reason}"]
    if receipt.undoes is not None:
        said.append(f"It undid generation {receipt.undoes.generation} ({receipt.undoes.version or 'a withdrawal'}).")
    if receipt.events:
        sent = ", ".join(f"{e.tenant} at partition {e.partition}, offset {e.offset}" for e in receipt.events)
        said.append(f"The event is on {receipt.topic}: {sent}.")
    return said


def _seen(receipt: ReceiptPredicate) -> list[str]:
    said = []
    if receipt.targets is not None:
        said.append(_obeyed(receipt.targets))
    if receipt.watch is not None:
        said.append(f"The watch came to {receipt.watch.verdict.value} on {_when(receipt.watch.decided_at)}.")
    for order in receipt.orders:
        who = order.person or "An unsigned message"
        said.append(f"{who} ordered {order.verb} on {_when(order.at)}: {order.reason}")
    return said


def _obeyed(found: TargetsFact) -> str:
    sources = [
        f"{one.fleet.converged:,} of the {one.fleet.asked.count:,} targets of {one.source} ({one.fleet.asked.ids})"
        for one in found.discovered
    ]
    missing = [f"{t.id} was {t.state}" for t in found.targets if t.state != "converged"]
    others = 0
    if found.fleet is None:
        own = [target.id for target in found.targets if target.state == "converged"]
        obeyed = _names([*own, *sources])
    else:
        own_fleet = f"{found.fleet.converged:,} of {found.fleet.asked.count:,} targets ({found.fleet.asked.ids})"
        obeyed = _names([own_fleet, *sources])
        others = found.fleet.asked.count - found.fleet.converged - len(missing)
    end = f"; {named(missing, others)}" if missing or others else ""
    return f"{obeyed} obeyed it by {_when(found.at)}{end}."


def _end(receipt: ReceiptPredicate) -> list[str]:
    said = [
        f"It was {stood.standing.value} on {_when(stood.recorded_at)}: {stood.reason}" for stood in receipt.standings
    ]
    if receipt.undone_by is not None:
        said.append(_undone(receipt.undone_by))
    return said or ["A newer release replaced it before anything was recorded of it."]


def _undone(undo: UndoFact) -> str:
    by = f", by {_names(undo.by)}" if undo.by else ""
    return f"Generation {undo.generation} ({undo.kind.value}) undid it{by}: {undo.reason}"


def _sealed(receipt: ReceiptPredicate) -> list[str]:
    archive = receipt.archive
    reached, histories = receipt.audit_head.sequence, len(archive.histories)
    return [
        f"Sealed on {_when(receipt.sealed_at)} as receipt {receipt.sequence}; the audit stream had reached {reached}.",
        f"{archive.reported_by} reported {archive.files} archived files, {histories} of them closed histories.",
    ]


def _names(people: list[str] | tuple[str, ...]) -> str:
    unique = list(dict.fromkeys(people))
    if not unique:
        return "Nobody"
    return unique[0] if len(unique) == 1 else f"{', '.join(unique[:-1])} and {unique[-1]}"


def _when(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")
