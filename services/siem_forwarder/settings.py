"""Settings of the SIEM forwarder."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, model_validator

from adapters.kafka_settings import KafkaSettings
from services.common.settings import Settings


class ForwarderSettings(Settings, KafkaSettings):
    """Where events come from and where they go.

    Args:
        siem_sink: ``SIEM_SINK``: where events go.
        siem_file: ``SIEM_FILE``: where ``ndjson`` writes.
        siem_syslog_address: ``SIEM_SYSLOG_ADDRESS``, ``host:port`` that ``syslog`` sends to.
        siem_http_url: ``SIEM_HTTP_URL``: where ``http`` sends.
        siem_http_token: ``SIEM_HTTP_TOKEN``, bearer token for ``http``.
    """

    siem_sink: Literal["ndjson", "syslog", "http"]
    siem_file: Path | None = None
    siem_syslog_address: str | None = Field(default=None, pattern=r"^(\[[0-9A-Fa-f:.]+\]|[^:\s]+):[0-9]{1,5}$")
    siem_http_url: str | None = Field(default=None, pattern=r"^https?://")
    siem_http_token: SecretStr | None = None

    @model_validator(mode="after")
    def _address_of_the_sink(self) -> "ForwarderSettings":
        needed = {
            "ndjson": ("SIEM_FILE", self.siem_file),
            "syslog": ("SIEM_SYSLOG_ADDRESS", self.siem_syslog_address),
            "http": ("SIEM_HTTP_URL", self.siem_http_url),
        }
        name, value = needed[self.siem_sink]
        if value is None:
            raise ValueError(f"SIEM_SINK={self.siem_sink} needs {name}")
        return self
