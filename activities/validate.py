"""Runbook step 2: constitution-service says that the artifact is valid and names its checksum."""

from temporalio import activity

from activities.failures import classified
from activities.ports import ConstitutionService
from activities.subject import Subject
from constitution.api import ValidateResult
from constitution.errors import InvalidDocumentError, UntrustedError


class Validate:
    """Asks ``POST /v1/constitution/validate``."""

    def __init__(self, *, service: ConstitutionService) -> None:
        self._service = service

    @activity.defn
    @classified
    async def validate_signature(self, x: Subject) -> ValidateResult:
        """Have the service validate the staged artifact, and compare the checksum that it answers with.

        Assumes: the artifact is staged. Twice, killed half-way, or late: the call changes nothing.

        Raises:
            InvalidDocumentError: ``valid`` is false; all issues are listed.
            UntrustedError: the answer is about other bytes.
        """
        said = await self._service.validate(x.checksum)
        if said.checksum != x.checksum:
            raise UntrustedError(f"constitution-service validated {said.checksum}, not {x.checksum}")
        if not said.valid:
            raise InvalidDocumentError(
                f"constitution-service refuses version {x.version}",
                issues=said.issues,
                hint="correct the document, sign it again, push it and start a new update",
            )
        return said
