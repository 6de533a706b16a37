"""The error tree. A retry never resolves a content error; it may resolve a transport error.

::

    ConstitutionError
    ├── ContentError              permanent: the bytes, the request or the right to do it is wrong
    │   ├── InvalidRequestError   what was typed cannot be read as a request
    │   ├── InvalidDocumentError  the constitution breaks its schema or its rules of validity
    │   ├── UntrustedError        signatures do not meet the trust policy
    │   ├── NotApprovedError      the board has not approved, or has denied
    │   ├── EvidenceError         the regression gate's evidence is missing, failed or of other bytes
    │   ├── ForbiddenError        the token lacks the scope, or there is none
    │   ├── NotFoundError         no such artifact, release or change request
    │   └── ConflictError         the state changed: another holder, another generation
    │       ├── LeaseHeldError    another update or rollback holds the lease
    │       ├── LeaseLostError    the fencing token is not the current one
    │       │   └── UpdateClosedError  the update, or its change request, was closed for ever
    │       ├── StaleGenerationError  expected_generation is not the highest
    │       └── NotCurrentError   the release that the call names is not live
    └── TransportError            transient: ask again
        ├── UnavailableError      a system did not answer, or answered that it cannot now
        │   └── UnsupportedServerError  permanent: it runs in a mode that this product cannot use
        └── NotYetError           it answered; the awaited event has not happened yet

``code`` is stable and is the ``type`` of the RFC 9457 problem and of Temporal's ApplicationError; decisions
read it, never the message.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from constitution.model import Model

MAX_ISSUES = 100  # listed in one error; a hostile megabyte holds many thousand problems, and nobody reads more


class Issue(Model):
    """One thing that is wrong: a stable code, where (a JSON pointer, a field, a file), what, and what to do."""

    code: str
    path: str = ""
    message: str
    hint: str = ""


def listed(issues: Sequence[Issue], found: int | None = None) -> tuple[Issue, ...]:
    """Return the first ``MAX_ISSUES`` issues, and one more that counts the rest; idempotent.

    Args:
        issues: in their order.
        found: how many there are, where ``issues`` are not all of them.
    """
    shown = tuple(issues[: MAX_ISSUES + 1])
    if len(shown) <= MAX_ISSUES or shown[MAX_ISSUES].code == "more":
        return shown
    rest = (len(issues) if found is None else found) - MAX_ISSUES
    return (*shown[:MAX_ISSUES], Issue(code="more", message=f"and {rest} more problems"))


class ConstitutionError(Exception):
    """Base of every error this product raises on purpose.

    Args:
        message: what is wrong, in one sentence.
        issues: the problems found, when there are several; the first ``MAX_ISSUES`` are kept, and the rest is counted.
        hint: what to do next, as a command where there is one.
        current: on a conflict, what is current, or who holds the lease.
    """

    code: ClassVar[str] = "constitution-error"
    permanent: ClassVar[bool] = True
    status: ClassVar[int] = 500

    def __init__(
        self, message: str, *, issues: Sequence[Issue] = (), hint: str = "", current: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.issues = listed(issues)
        self.hint = hint
        self.current = current

    def diagnostics(self) -> str:
        """Return the message, each issue on a line of its own, and the hint: text for a person."""
        lines = [self.message]
        lines += [f"  - {i.path + ': ' if i.path else ''}{i.message} [{i.code}]" for i in self.issues]
        if self.hint:
            lines.append(f"next: {self.hint}")
        return "\n".join(lines)


class ContentError(ConstitutionError):
    """Permanent: a retry with the same input can only fail again."""

    code = "content-error"
    status = 422


class InvalidRequestError(ContentError):
    """What was typed or sent cannot be read as the request it should be."""

    code = "invalid-request"
    status = 400


class InvalidDocumentError(ContentError):
    """The constitution breaks its schema, its size limits or the rules of validity of its kind."""

    code = "invalid-document"


class UntrustedError(ContentError):
    """Signatures, or a statement, do not meet the trust policy."""

    code = "untrusted"


class NotApprovedError(ContentError):
    """The board has not approved these very bytes for this change request and evidence, or one member denied."""

    code = "not-approved"
    status = 403


class EvidenceError(ContentError):
    """The regression gate's evidence is missing, reports a failure, or was made for other bytes."""

    code = "evidence-refused"


class ForbiddenError(ContentError):
    """No token, an invalid token, or one without the scope."""

    code = "forbidden"
    status = 403


class NotFoundError(ContentError):
    """There is no such artifact, release, change request or person."""

    code = "not-found"
    status = 404


class ConflictError(ContentError):
    """The state has changed since the caller read it."""

    code = "conflict"
    status = 409


class LeaseHeldError(ConflictError):
    """Another update or rollback holds the environment's lease; the message names it."""

    code = "lease-held"


class LeaseLostError(ConflictError):
    """The fencing token is not the current one: a later holder has taken the lease."""

    code = "lease-lost"


class UpdateClosedError(LeaseLostError):
    """The update was denied, aborted, expired or undone, or its change request was denied: it can never go live."""

    code = "update-closed"


class HeldError(ConflictError):
    """A person holds the release: it is not confirmed before another one resumes or promotes it."""

    code = "held"


class OrderUsedError(ConflictError):
    """This signed order was obeyed before: each counts once."""

    code = "order-used"


class UnsettledError(ConflictError):
    """Nothing is recorded of what became of the release; its receipt waits for that."""

    code = "unsettled"


class ReceiptSealedError(ConflictError):
    """The release has a receipt already, over other files."""

    code = "receipt-sealed"


class StaleGenerationError(ConflictError):
    """``expected_generation`` is not the highest generation of the environment."""

    code = "stale-generation"


class NotCurrentError(ConflictError):
    """The release that the call is about is not (or no longer) the current one."""

    code = "not-current"


class TransportError(ConstitutionError):
    """Transient: the same call may succeed later.

    ``after_s`` is set where the other side has said how many seconds to wait (``Retry-After``).
    """

    code = "transport-error"
    permanent = False
    status = 503
    after_s: float | None = None


class UnavailableError(TransportError):
    """A system did not answer in time, refused the connection, or said that it cannot serve now."""

    code = "unavailable"


class UnsupportedServerError(UnavailableError):
    """A server runs in a mode that this product cannot use; a person must change that, a retry does not.

    Callers that go on without an unreachable server go on without this one, too.
    """

    code = "unsupported-server"
    permanent = True
    status = 422


class NotYetError(TransportError):
    """Every system answered; the awaited event has not happened yet."""

    code = "not-yet"
