"""Settings of the orchestrator."""

from pydantic import field_validator

from adapters.process_settings import ExistingFile
from services.following.settings import FollowingSettings


class OrchestratorSettings(FollowingSettings):
    """As every follower's, and whom it asks.

    Args:
        policy_engine_url: ``POLICY_ENGINE_URL``: one or several, separated by commas, tried in turn.
        client_key_file: ``CLIENT_KEY_FILE``: key with scope ``policy:refresh``, to make an engine refresh itself.
    """

    policy_engine_url: str
    client_key_file: ExistingFile

    @field_validator("policy_engine_url")
    @classmethod
    def _urls(cls, value: str) -> str:
        urls = [url.strip() for url in value.split(",")]
        if not all(url.startswith(("http://", "https://")) for url in urls):
            raise ValueError("give http:// or https:// URLs, separated by commas")
        return ",".join(url.rstrip("/") for url in urls)

    def engine_urls(self) -> tuple[str, ...]:
        """Return the engines in the order in which they are tried."""
        return tuple(self.policy_engine_url.split(","))
