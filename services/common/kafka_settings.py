"""How a service reaches Kafka: one set of variables for producers and consumers."""

from typing import Literal

from pydantic import SecretStr, model_validator

from services.common.settings import Settings


class KafkaSettings(Settings):
    """Base of the settings of every service that speaks to Kafka.

    Args:
        kafka_bootstrap_servers: ``KAFKA_BOOTSTRAP_SERVERS``, ``host:port`` separated by commas.
        kafka_username: ``KAFKA_USERNAME`` for SASL/PLAIN; unset means no authentication.
        kafka_password: ``KAFKA_PASSWORD``; required with a username.
        kafka_security_protocol: ``KAFKA_SECURITY_PROTOCOL``; default SASL_PLAINTEXT with a username, else PLAINTEXT.
    """

    kafka_bootstrap_servers: str
    kafka_username: str | None = None
    kafka_password: SecretStr | None = None
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] | None = None

    @model_validator(mode="after")
    def _password_with_username(self) -> "KafkaSettings":
        if (self.kafka_username is None) != (self.kafka_password is None):
            raise ValueError("KAFKA_USERNAME and KAFKA_PASSWORD go together")
        return self

    def kafka_connection(self) -> dict[str, str | int]:
        """Return librdkafka's settings of the connection."""
        connection: dict[str, str | int] = {
            "bootstrap.servers": self.kafka_bootstrap_servers,
            "security.protocol": self.kafka_security_protocol
            or ("SASL_PLAINTEXT" if self.kafka_username else "PLAINTEXT"),
        }
        if self.kafka_username is not None and self.kafka_password is not None:
            connection["sasl.mechanism"] = "PLAIN"
            connection["sasl.username"] = self.kafka_username
            connection["sasl.password"] = self.kafka_password.get_secret_value()
        return connection
