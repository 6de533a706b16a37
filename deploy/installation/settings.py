"""Where everything is: the settings of all processes in one, each optional, for a look at an installation."""

import os
from pathlib import Path

from pydantic import SecretStr

from adapters.kafka_settings import KafkaSettings
from adapters.postgres_password import DatabasePasswordSettings
from adapters.process_settings import read_settings
from constitution.names import Names
from services.constitution_service.migrate import MigrationSettings


class InstallationSettings(DatabasePasswordSettings):
    """What a process of ours would be started with (docs/settings.md); what is not set is not looked at."""

    namespace: str = ""
    environment_file: Path | None = None
    constitution_service_url: str | None = None
    database_url: SecretStr | None = None
    database_reader_url: SecretStr | None = None
    migrations_directory: Path = MigrationSettings.model_fields["migrations_directory"].default
    redis_url: SecretStr | None = None
    artifact_store_url: str | None = None
    prometheus_url: str | None = None
    prometheus_token_file: Path | None = None
    prometheus_certificate_file: Path | None = None
    prometheus_certificate_key_file: Path | None = None
    client_key_file: Path | None = None
    statement_key_file: Path | None = None
    assessor_key_file: Path | None = None

    @property
    def names(self) -> Names:
        """Names in shared systems."""
        return Names(self.namespace)


def read() -> tuple[InstallationSettings, KafkaSettings | None]:
    """Read the settings, and those of Kafka where it is named.

    Raises:
        InvalidRequestError: with every problem, also of names that no process reads.
    """
    settings = read_settings(InstallationSettings)
    named = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "").strip()
    return settings, read_settings(KafkaSettings) if named else None
