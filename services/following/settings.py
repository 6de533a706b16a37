"""Settings of every process that follows a constitution."""

from typing import Annotated, Literal

from pydantic import Field

from adapters.kafka_settings import KafkaSettings
from constitution.environment import Identifier
from constitution.names import DEFAULT_RING
from services.common.settings import Settings
from services.following.view import Caution


class FollowingSettings(Settings, KafkaSettings):
    """Base of the settings of policy engine and orchestrator.

    Args:
        target_id: ``TARGET_ID``, this replica's id in ``environment.toml``; also names its consumer group.
        ring: ``RING``.
        constitution_service_url: ``CONSTITUTION_SERVICE_URL``.
        max_staleness_seconds: ``MAX_STALENESS_SECONDS`` without contact before the replica is stale.
        staleness_action: ``STALENESS_ACTION``: go on by the last good document, or deny everything.
        expired_action: ``EXPIRED_ACTION``: go on by an expired document, or deny everything.
        poll_seconds: ``POLL_SECONDS`` between two reads without a hint.
    """

    target_id: Identifier
    ring: Identifier = DEFAULT_RING
    constitution_service_url: Annotated[str, Field(pattern=r"^https?://")]
    max_staleness_seconds: Annotated[float, Field(gt=0, le=86400)] = 60.0
    staleness_action: Literal["degrade", "deny"] = "degrade"
    expired_action: Literal["enforce", "deny"] = "enforce"
    poll_seconds: Annotated[float, Field(gt=0, le=3600)] = 5.0

    def caution(self) -> Caution:
        """Return what to do when the constitution in hand may no longer be the right one."""
        return Caution(stale=self.staleness_action, expired=self.expired_action)
