"""Settings of constitution-service."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr

from adapters.kafka_settings import KafkaSettings
from adapters.postgres_password import DatabasePasswordSettings
from adapters.process_settings import ExistingFile
from adapters.redis_settings import RedisSettings
from services.common.settings import Settings
from services.constitution_service.context import LEASE_TTL
from services.constitution_service.serving.memory import MAX_STALENESS


class ServiceSettings(Settings, DatabasePasswordSettings, KafkaSettings, RedisSettings):
    """Beside the common ones (services.common.settings), ``KAFKA_*`` and ``REDIS_URL``.

    Args:
        database_url: ``DATABASE_URL`` as the role ``constitution_service``.
        artifact_store_url: ``ARTIFACT_STORE_URL``, where documents and evidence are kept: ``file:///…``, ``s3://…``,
            ``gs://…`` or ``az://…``.
        statement_key_file: ``STATEMENT_KEY_FILE``: the Ed25519 private key (JWK) that signs release statements.
        spool_directory: ``SPOOL_DIRECTORY``: where audit events wait while PostgreSQL is down; survives restarts.
        lease_seconds: ``LEASE_SECONDS``: after so long without a sign of life of its holder a lease has ended.
        max_staleness_seconds: ``MAX_STALENESS_SECONDS``: so long what PostgreSQL confirmed last is given, marked, while
            PostgreSQL does not answer.
    """

    database_url: SecretStr
    artifact_store_url: str
    statement_key_file: ExistingFile
    spool_directory: Path
    lease_seconds: Annotated[float, Field(ge=1, le=86400)] = LEASE_TTL.total_seconds()
    max_staleness_seconds: Annotated[float, Field(ge=0, le=86400)] = MAX_STALENESS.total_seconds()
