"""Errors that only this service raises; all are members of the domain's tree."""

from constitution.errors import ConflictError, ContentError, InvalidRequestError, NotFoundError, UnavailableError


class NoConstitutionError(NotFoundError):
    """The ring has no release yet: before generation 1."""

    code = "no-constitution"


class IdempotencyKeyError(InvalidRequestError):
    """The ``Idempotency-Key`` is missing or does not name this environment, update and a step."""

    code = "idempotency-key"


class IdempotencyMismatchError(ContentError):
    """The key was used before with another body."""

    code = "idempotency-mismatch"


class NotPossibleError(ContentError):
    """The request can be read but asks for something its kind does not allow; lists every reason."""

    code = "not-possible"


class StandingConflictError(ConflictError):
    """The standing cannot follow the one that is recorded."""

    code = "standing-conflict"


class ChangeRequestTakenError(ConflictError):
    """Another change request has this id."""

    code = "change-request-taken"


class PostgresBehindError(ConflictError):
    """A signed release exists that this database does not know: it was restored from an older backup."""

    code = "postgres-behind"


class UnprovedError(UnavailableError):
    """Nothing proves that the next generation is unused; it passes when Kafka or the artifact store answers."""

    code = "generation-unproved"


class BehindError(UnavailableError):
    """This service does not know the current release: its database was restored from an older backup."""

    code = "postgres-behind"


class RecordConflictError(ConflictError):
    """The artifact store holds another signed record of the same generation."""

    code = "record-conflict"
