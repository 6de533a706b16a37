"""Runbook step 2: constitution-service says that the artifact is valid and names its checksum."""

from temporalio import activity

from activities.failures import classified
from activities.ports import ConstitutionService
from activities.subject import Subject
from constitution.api import ValidateResult


class Validate:
    """Asks ``POST /v1/constitution/validate``."""

    def __init__(self, *, service: ConstitutionService) -> None:
        self._service = service

    @activity.defn
    @classified
    async def validate_signature(self, x: Subject) -> ValidateResult: ...
