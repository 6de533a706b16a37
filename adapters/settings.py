"""Settings of the worker and of the assessor.

Temporal's own (``TEMPORAL_ADDRESS``, profiles, TLS, API key) are read by ``temporalio.envconfig``, as its CLI does.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, StringConstraints, ValidationInfo, field_validator, model_validator

from adapters.kafka_settings import KafkaSettings
from adapters.postgres_password import DatabasePasswordSettings
from adapters.process_settings import ExistingFile, ExistingFolder, ProcessSettings
from adapters.redis_settings import RedisSettings

Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/]+\S*$")]


class PollingSettings(ProcessSettings):
    """What the worker and the assessor are told alike, beside the common ones (``adapters.process_settings``).

    Args:
        constitution_service_url: ``CONSTITUTION_SERVICE_URL``, where constitution-service answers.
        client_key_file: ``CLIENT_KEY_FILE``, the JWK that mints its service tokens.
        evidence_directory: ``EVIDENCE_DIRECTORY``, private scratch folder; made when missing.
        metrics_port: ``METRICS_PORT``, the port of the metrics.
        drain_seconds: ``DRAIN_SECONDS``: after SIGTERM, how long running activities may go on.
    """

    constitution_service_url: Url
    client_key_file: ExistingFile
    evidence_directory: Path
    metrics_port: Annotated[int, Field(ge=1, le=65535)]
    drain_seconds: Annotated[int, Field(ge=1, le=3600)] = 20


class AssessorSettings(PollingSettings):
    """Everything the assessor is told from outside.

    Args:
        assessor_key_file: ``ASSESSOR_KEY_FILE``, the JWK that signs what it saw.
        prometheus_url: ``PROMETHEUS_URL``, of Prometheus or of what has its API; a path before the API's own
            (``/prometheus``) and a password (``https://user:password@host``) may be in it.
        prometheus_token_file: ``PROMETHEUS_TOKEN_FILE``: its bearer token, read anew for each query.
        prometheus_certificate_file: ``PROMETHEUS_CERTIFICATE_FILE``, PEM of our certificate, for mutual TLS.
        prometheus_certificate_key_file: ``PROMETHEUS_CERTIFICATE_KEY_FILE``, PEM of its key.
    """

    assessor_key_file: ExistingFile
    prometheus_url: Url
    prometheus_token_file: ExistingFile | None = None
    prometheus_certificate_file: ExistingFile | None = None
    prometheus_certificate_key_file: ExistingFile | None = None

    @model_validator(mode="after")
    def _whole_certificate(self) -> "AssessorSettings":
        if (self.prometheus_certificate_file is None) != (self.prometheus_certificate_key_file is None):
            raise ValueError("PROMETHEUS_CERTIFICATE_FILE and PROMETHEUS_CERTIFICATE_KEY_FILE: both or neither")
        return self


class WorkerSettings(PollingSettings, DatabasePasswordSettings, KafkaSettings, RedisSettings):
    """Everything the worker is told from outside.

    Args:
        database_reader_url: ``DATABASE_READER_URL``, a role that may only read.
        slack_bot_token: ``SLACK_BOT_TOKEN``: token of the app that posts.
        slack_api_url: ``SLACK_API_URL`` of an emulator; unset: Slack's own cloud.
        archive_repository: ``ARCHIVE_REPOSITORY``, a git repository, better bare: with a working tree each commit
            reads and writes git's index, which has an entry of every file.
        temporal_ui_url: ``TEMPORAL_UI_URL``, for links in messages.
        temporal_deployment_name: ``TEMPORAL_DEPLOYMENT_NAME``: this worker is a build of that worker deployment; unset:
            worker versioning is off, and any worker may go on with any run.
        temporal_worker_build_id: ``TEMPORAL_WORKER_BUILD_ID``: its build; unset: the package's version and
            a digest of its code.
        reconcile_seconds: ``RECONCILE_SECONDS``: interval of reconciliation; 0: this worker makes no schedule for it.
        reconcile_closed_seconds: ``RECONCILE_CLOSED_SECONDS``: how long runs must have been closed before
            reconciliation finishes what they left.
    """

    database_reader_url: SecretStr
    slack_bot_token: SecretStr
    slack_api_url: Url | None = None
    archive_repository: ExistingFolder
    temporal_ui_url: Url | None = None
    # Temporal's own names (its worker controller sets them). No '.': it separates name and build.
    temporal_deployment_name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,128}$")] | None = None
    temporal_worker_build_id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,128}$")] | None = None
    reconcile_seconds: Annotated[int, Field(ge=0, le=86400)] = 30
    reconcile_closed_seconds: Annotated[float, Field(ge=1, le=86400)] = 60

    @field_validator("temporal_worker_build_id")
    @classmethod
    def _of_a_deployment(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("temporal_deployment_name") is None:
            raise ValueError("a build is a build of a deployment: TEMPORAL_DEPLOYMENT_NAME is not set, or wrong")
        return value

    @field_validator("database_reader_url")
    @classmethod
    def _postgres(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith(("postgresql://", "postgres://")):
            raise ValueError("must begin with postgresql://")
        return value
