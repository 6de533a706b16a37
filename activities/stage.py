"""Runbook step 1: the artifact is in the store, under its checksum, with its signatures."""

from temporalio import activity

from activities.documents import inbox_file, require_checksum
from activities.failures import classified
from activities.keys import require_environment
from activities.ports import ActivityConfig, ConstitutionService
from activities.update_plan import UpdatePlan
from constitution.api import Artifact
from constitution.model import Model


class StageInput(Model):
    """``document`` and ``signatures`` are names inside the inbox; null and empty when the artifact was pushed."""

    update: UpdatePlan
    document: str | None = None
    signatures: tuple[str, ...] = ()


class Stage:
    """Stages the artifact."""

    def __init__(self, *, service: ConstitutionService, config: ActivityConfig) -> None:
        self._service = service
        self._config = config

    @activity.defn
    @classified
    async def stage_artifact(self, x: StageInput) -> Artifact:
        """Put document and signatures into the store, and prove that it has exactly these bytes.

        Assumes: the update was resolved; the inbox may have changed since.
        Twice, or killed half-way: the store is content-addressed, the same bytes again are the same artifact. Late,
        after its caller died: an artifact more in the store; nothing goes live by it.

        Raises:
            UntrustedError: the bytes are not those of the update, or the signatures do not meet the trust policy.
            NotFoundError: by checksum, and the store has no such artifact.
            InvalidRequestError: by name, and a file of the inbox cannot be read.
        """
        require_environment(self._config, x.update.environment)
        if x.document is not None:
            document = await inbox_file(self._config, x.document)
            signatures = [await inbox_file(self._config, name) for name in x.signatures]
        else:
            document = await self._service.artifact(x.update.checksum)
            signatures = await self._service.artifact_signatures(x.update.checksum)
        require_checksum(document, x.update.checksum)
        artifact = await self._service.push(document, signatures)
        require_checksum(await self._service.artifact(artifact.checksum), x.update.checksum)
        return artifact
