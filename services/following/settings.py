"""Settings of every process that follows a constitution."""

from typing import Annotated

from pydantic import Field

from adapters.environment_config import EnvironmentConfig
from adapters.kafka_settings import KafkaSettings
from constitution.environment import Identifier
from constitution.names import DEFAULT_RING, Names
from constitution.policy.lapse import Caution, OnLapse
from constitution_follow.following import Source
from services.common.settings import Settings
from services.following.kafka_hints import KafkaHints


class FollowingSettings(Settings, KafkaSettings):
    """Base of the settings of policy engine and orchestrator.

    Args:
        target_id: ``TARGET_ID``, this replica's id in ``environment.toml``; also names its consumer group.
        ring: ``RING`` that it is in, as ``environment.toml`` says.
        constitution_service_url: ``CONSTITUTION_SERVICE_URL``, where constitution-service answers.
        max_staleness_seconds: ``MAX_STALENESS_SECONDS`` without contact before the replica is stale.
        staleness_action: ``STALENESS_ACTION``: at the least so strict when stale, whatever the document says.
        expired_action: ``EXPIRED_ACTION``: at the least so strict once expired, without the document's grace.
        poll_seconds: ``POLL_SECONDS`` between two reads without a hint.
    """

    target_id: Identifier
    ring: Identifier = DEFAULT_RING
    constitution_service_url: Annotated[str, Field(pattern=r"^https?://")]
    max_staleness_seconds: Annotated[float, Field(gt=0, le=86400)] = 60.0
    staleness_action: OnLapse = OnLapse.ENFORCE
    expired_action: OnLapse = OnLapse.ENFORCE
    poll_seconds: Annotated[float, Field(gt=0, le=3600)] = 5.0

    def source(self, config: EnvironmentConfig) -> Source:
        """Return whom the process follows."""
        return Source(
            service=self.constitution_service_url,
            trust=config.holder,
            target=self.target_id,
            ring=self.ring,
            poll_seconds=self.poll_seconds,
            max_staleness_seconds=self.max_staleness_seconds,
        )

    def hints(self) -> KafkaHints:
        """Return what tells the process of releases at once."""
        return KafkaHints(self.kafka_client(), Names(self.namespace), self.target_id)

    def caution(self) -> Caution:
        """Return how strict this process is at the least; the signed document may be stricter."""
        return Caution(stale=self.staleness_action, expired=self.expired_action)
