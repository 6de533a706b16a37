"""Settings of constitution-service."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr

from adapters.kafka_settings import KafkaSettings
from adapters.process_settings import ExistingFile
from services.common.settings import Settings
from services.constitution_service.context import LEASE_TTL


class ServiceSettings(Settings, KafkaSettings):
    """Beside the common ones (services.common.settings) and ``KAFKA_*``.

    Args:
        database_url: ``DATABASE_URL`` of the role ``constitution_service``.
        redis_url: ``REDIS_URL`` with its password.
        artifact_store_url: ``ARTIFACT_STORE_URL``: ``file:///…``, ``s3://…``, ``gs://…`` or ``az://…``.
        statement_key_file: ``STATEMENT_KEY_FILE``: the Ed25519 private key (JWK) that signs release statements.
        spool_directory: ``SPOOL_DIRECTORY``: where audit events wait while PostgreSQL is down; survives restarts.
        lease_seconds: ``LEASE_SECONDS``: after so long without a sign of life of its holder a lease has ended.
    """

    database_url: SecretStr
    redis_url: SecretStr
    artifact_store_url: str
    statement_key_file: ExistingFile
    spool_directory: Path
    lease_seconds: Annotated[float, Field(ge=1, le=86400)] = LEASE_TTL.total_seconds()
