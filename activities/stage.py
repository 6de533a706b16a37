"""Runbook step 1: the artifact is in the store, under its checksum, with its signatures."""

from temporalio import activity

from activities.failures import classified
from activities.ports import ConstitutionService, Deployment
from activities.subject import Subject
from constitution.api import Artifact
from constitution.model import Model


class StageInput(Model):
    """``document`` and ``signatures`` are names inside the inbox; null and empty when the artifact was pushed."""

    subject: Subject
    document: str | None = None
    signatures: tuple[str, ...] = ()


class Stage:
    """Stages the artifact."""

    def __init__(self, *, service: ConstitutionService, deployment: Deployment) -> None:
        self._service = service
        self._deployment = deployment

    @activity.defn
    @classified
    async def stage_artifact(self, x: StageInput) -> Artifact: ...
