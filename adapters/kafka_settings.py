"""How to reach Kafka: ``KAFKA_*`` variables, and what they mean to librdkafka."""

import os
from typing import Literal

from pydantic import SecretStr

from adapters.process_settings import FrozenSettings


class KafkaSettings(FrozenSettings):
    """Mixed into the settings of every process that talks to Kafka.

    Args:
        kafka_bootstrap_servers: ``KAFKA_BOOTSTRAP_SERVERS``, ``host:port`` separated by commas.
        kafka_username: ``KAFKA_USERNAME``; unset means no SASL.
        kafka_password: ``KAFKA_PASSWORD``.
        kafka_security_protocol: ``KAFKA_SECURITY_PROTOCOL``; default by whether there is a username.
    """

    kafka_bootstrap_servers: str
    kafka_username: str = ""
    kafka_password: SecretStr = SecretStr("")
    kafka_security_protocol: Literal["PLAINTEXT", "SASL_PLAINTEXT", "SSL", "SASL_SSL"] | None = None

    def kafka_client(self) -> dict[str, str]:
        """Return the connection part of a confluent-kafka configuration (holds the password: never log it)."""
        protocol = self.kafka_security_protocol or ("SASL_PLAINTEXT" if self.kafka_username else "PLAINTEXT")
        config = {"bootstrap.servers": self.kafka_bootstrap_servers, "security.protocol": protocol}
        authorities = os.environ.get("SSL_CERT_FILE")
        if authorities and protocol.endswith("SSL"):  # librdkafka looks in well-known places and reads no variable
            config["ssl.ca.location"] = authorities
        if self.kafka_username:
            config |= {
                "sasl.mechanism": "PLAIN",
                "sasl.username": self.kafka_username,
                "sasl.password": self.kafka_password.get_secret_value(),
            }
        return config
