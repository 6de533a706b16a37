"""Settings of constitution-service."""

from pathlib import Path

from pydantic import SecretStr

from adapters.kafka_settings import KafkaSettings
from services.common.settings import Settings


class ServiceSettings(Settings, KafkaSettings):
    """Beside the common ones (services.common.settings) and ``KAFKA_*``.

    Args:
        database_url: ``DATABASE_URL`` of the role ``constitution_service``.
        redis_url: ``REDIS_URL`` with its password.
        artifact_store_url: ``ARTIFACT_STORE_URL``: ``file:///…``, ``s3://…``, ``gs://…`` or ``az://…``.
        statement_key_file: ``STATEMENT_KEY_FILE``: the Ed25519 private key (JWK) that signs release statements.
        spool_directory: ``SPOOL_DIRECTORY``: where audit events wait while PostgreSQL is down; survives restarts.
    """

    database_url: SecretStr
    redis_url: SecretStr
    artifact_store_url: str
    statement_key_file: Path
    spool_directory: Path
