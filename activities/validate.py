"""Runbook step 2: constitution-service says that the artifact is valid and names its checksum."""

from temporalio import activity

from activities.documents import update_files
from activities.failures import classified
from activities.keys import require_environment
from activities.ports import ActivityConfig, ConstitutionService
from activities.update_plan import UpdatePlan
from constitution.api import ValidateResult
from constitution.errors import InvalidDocumentError, NotFoundError, UntrustedError


class Validate:
    """Asks ``POST /v1/constitution/validate``."""

    def __init__(self, *, service: ConstitutionService, config: ActivityConfig) -> None:
        self._service = service
        self._config = config

    @activity.defn
    @classified
    async def validate_signature(self, x: UpdatePlan) -> ValidateResult:
        """Have the service validate the staged artifact, and compare the checksum that it answers with.

        Assumes: the artifact is staged; only a dry run from the inbox sends the files instead.
        Twice, killed half-way, or late: the call changes nothing.

        Raises:
            InvalidDocumentError: ``valid`` is false; all issues are listed.
            UntrustedError: the answer is about other bytes.
        """
        require_environment(self._config, x.environment)
        try:
            result = await self._service.validate(x.checksum)
        except NotFoundError:
            if x.document is None:
                raise
            # A dry run from the inbox: nothing was staged, so the files themselves are sent.
            result = await self._service.validate_files(*await update_files(self._service, self._config, x))
        if result.checksum != x.checksum:
            raise UntrustedError(f"constitution-service validated {result.checksum}, not {x.checksum}")
        if not result.valid:
            raise InvalidDocumentError(
                f"constitution-service refuses version {x.version}",
                issues=result.issues,
                hint="correct the document, sign it again, push it and start a new update",
            )
        return result
