"""What is signed about a constitution: release statements, approvals, orders, change requests.

The first three are in-toto Statements v1 (github.com/in-toto/attestation, spec/v1/statement.md) in RFC 8785 bytes
inside a DSSE envelope; a change request is a plain object in the same encoding. Who may sign what, and how many it
takes, is the domain's (constitution/trust/approval_rules.py); this module only proves who signed.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel, ValidationError

from constitution.api import ChangeRequest
from constitution.checksum import checksum_of
from constitution.environment import issues_of
from constitution.errors import InvalidRequestError, UntrustedError
from constitution.release import RELEASE_PREDICATE, Envelope, Kind, ReleasePredicate
from constitution.trust.approval import APPROVAL_PREDICATE, ORDER_PREDICATE, ApprovalPredicate, OrderPredicate
from constitution.trust.trust_policy import TrustPolicy
from signatures import dsse

IN_TOTO = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
CHANGE_REQUEST = "application/vnd.somaagenthub.change-request+json"
SUBJECT = "constitution"

_Predicate = TypeVar("_Predicate", bound=BaseModel)


def sign_release(predicate: ReleasePredicate, keyid: str, private_key: Ed25519PrivateKey) -> Envelope:
    """Sign a release statement with a service key.

    Raises:
        InvalidRequestError: a withdrawal that does not name the withdrawn document in ``previous``.
    """
    payload = statement(RELEASE_PREDICATE, _release_subject(predicate), predicate)
    return dsse.sign_ed25519(payload, IN_TOTO, keyid, private_key)


def verify_release(envelope: Envelope, trust: TrustPolicy) -> ReleasePredicate:
    """Return what a release statement says, once a pinned service key has been seen to have signed it.

    Raises:
        UntrustedError: not signed by such a key, no release statement, or one of another environment.
    """
    dsse.verify_service(envelope, trust)
    release = read_bound(envelope, RELEASE_PREDICATE, ReleasePredicate, _release_subject)
    if release.environment != trust.environment:  # one key may sign for several
        raise UntrustedError(f"the release statement's environment is {release.environment}, not {trust.environment}")
    return release


def sign_approval(predicate: ApprovalPredicate, tsk: bytes, password: str | None = None) -> Envelope:
    """Sign a board member's decision.

    Raises:
        InvalidRequestError: a withdrawal that names the withdrawn document neither in ``previous`` nor by generation.
        UntrustedError: the key cannot sign.
    """
    return dsse.sign_openpgp(approval_bytes(predicate), IN_TOTO, tsk, password)


def approval_bytes(predicate: ApprovalPredicate) -> bytes:
    """Return the payload of an approval, for signers that hold their key elsewhere (sign `dsse.pae` of it)."""
    return statement(APPROVAL_PREDICATE, _approval_subject(predicate), predicate)


def verify_approval(envelope: Envelope, trust: TrustPolicy, now: datetime) -> tuple[str, ApprovalPredicate]:
    """Return who signed a decision, and the decision. Whether it counts: constitution/trust/approval_rules.py.

    Raises:
        UntrustedError: nobody in the trust policy signed it, or it is no approval.
    """
    person = dsse.verify_person(envelope, trust, now)
    return person, read_bound(envelope, APPROVAL_PREDICATE, ApprovalPredicate, _approval_subject)


def sign_order(predicate: OrderPredicate, tsk: bytes, password: str | None = None) -> Envelope:
    """Sign an order to one run.

    Raises:
        UntrustedError: the key cannot sign.
    """
    return dsse.sign_openpgp(order_bytes(predicate), IN_TOTO, tsk, password)


def order_bytes(predicate: OrderPredicate) -> bytes:
    """Return the payload of an order, for signers that hold their key elsewhere (sign `dsse.pae` of it)."""
    return statement(ORDER_PREDICATE, _order_subject(predicate), predicate)


def verify_order(envelope: Envelope, trust: TrustPolicy, now: datetime) -> tuple[str, OrderPredicate]:
    """Return who signed an order, and the order.

    Raises:
        UntrustedError: nobody in the trust policy signed it, or it is no order.
    """
    person = dsse.verify_person(envelope, trust, now)
    return person, read_bound(envelope, ORDER_PREDICATE, OrderPredicate, _order_subject)


def sign_change_request(request: ChangeRequest, tsk: bytes, password: str | None = None) -> Envelope:
    """Sign a change request by its author.

    Raises:
        UntrustedError: the key cannot sign.
    """
    return dsse.sign_openpgp(change_request_bytes(request), CHANGE_REQUEST, tsk, password)


def change_request_bytes(request: ChangeRequest) -> bytes:
    """Return the payload of a change request, for signers that hold their key elsewhere (sign `dsse.pae` of it)."""
    return dsse.statement_bytes(request.model_dump(mode="json"))


def verify_change_request(envelope: Envelope, trust: TrustPolicy, now: datetime) -> ChangeRequest:
    """Return a change request whose author signed it.

    Raises:
        UntrustedError: nobody in the trust policy signed it, another than ``author`` did, or the author has not the
            role author.
    """
    person_id = dsse.verify_person(envelope, trust, now)
    request = _model(dsse.payload_of(envelope, CHANGE_REQUEST), ChangeRequest, "change request")
    if request.author != person_id:
        raise UntrustedError(f"the change request names {request.author} as its author, but {person_id} signed it")
    person = trust.person(person_id)
    if person is None or "author" not in person.roles:
        raise UntrustedError(f"{person_id} has not the role author in the trust policy")
    return request


def statement(predicate_type: str, subject: dict[str, Any], predicate: BaseModel) -> bytes:
    """Return the canonical bytes of a statement."""
    return dsse.statement_bytes(
        {
            "_type": STATEMENT_TYPE,
            "subject": [subject],
            "predicateType": predicate_type,
            "predicate": predicate.model_dump(mode="json"),
        }
    )


def read_bound(
    envelope: Envelope, predicate_type: str, model: type[_Predicate], subject: Callable[[Any], dict[str, Any]]
) -> _Predicate:
    """Return a statement's predicate; says nothing about who signed it.

    Args:
        envelope: that holds it.
        predicate_type: the only one taken.
        model: of the predicate.
        subject: the one that a predicate is about; the statement must name it.

    Raises:
        UntrustedError: another kind of statement, or one of another subject than its predicate.
    """
    found = dsse.payload_of(envelope, IN_TOTO)
    if set(found) != {"_type", "subject", "predicateType", "predicate"}:
        raise UntrustedError("the payload is no in-toto statement: it has other fields")
    if found["_type"] != STATEMENT_TYPE or found["predicateType"] != predicate_type:
        raise UntrustedError(f"the statement is no {predicate_type}")
    predicate = _model(found["predicate"], model, "statement")
    try:
        expected = subject(predicate)
    except InvalidRequestError as error:
        raise UntrustedError(error.message) from error
    if found["subject"] != [expected]:
        raise UntrustedError("the statement's subject is not what its predicate is about")
    return predicate


def _model(value: Any, model: type[_Predicate], what: str) -> _Predicate:
    """Validate without coercion: each field must read as it was written."""
    try:
        read = model.model_validate(value)
    except ValidationError as error:
        raise UntrustedError(f"the {what} cannot be read", issues=issues_of(error)) from error
    written = read.model_dump(mode="json")
    if any(written.get(key) != item for key, item in value.items()):
        raise UntrustedError(f"the {what} is not written as this program writes it")
    return read


def document_subject(checksum: str | None) -> dict[str, Any]:
    """Name a document.

    Raises:
        InvalidRequestError: there is none.
    """
    if checksum is None:
        raise InvalidRequestError("a withdrawal must name the withdrawn document in previous")
    return {"name": SUBJECT, "digest": {"sha256": checksum.removeprefix("sha256:")}}


def _release_subject(predicate: ReleasePredicate) -> dict[str, Any]:
    if predicate.kind is not Kind.WITHDRAW and predicate.checksum is None:
        raise InvalidRequestError(f"a release of kind {predicate.kind} must name a document")
    return document_subject(predicate.checksum or predicate.previous)


def _approval_subject(predicate: ApprovalPredicate) -> dict[str, Any]:
    """Name the document; for a withdrawal the withdrawn one, by its checksum or at least by its generation."""
    checksum = predicate.checksum or (predicate.previous.checksum if predicate.previous else None)
    if checksum is None and predicate.rollback_of is not None:
        generation = f"{predicate.environment}\n{predicate.rollback_of}"
        digest = checksum_of(generation.encode()).removeprefix("sha256:")
        return {"name": f"generation {predicate.rollback_of}", "digest": {"sha256": digest}}
    return document_subject(checksum)


def _order_subject(predicate: OrderPredicate) -> dict[str, Any]:
    run = f"{predicate.environment}\n{predicate.workflow_id}\n{predicate.update_id}"
    return {"name": predicate.workflow_id, "digest": {"sha256": checksum_of(run.encode()).removeprefix("sha256:")}}
