"""How to reach Kafka: ``KAFKA_*`` variables, and what they mean to librdkafka."""

import os
from typing import Annotated, Literal, Self

from pydantic import SecretStr, StringConstraints, model_validator

from adapters.process_settings import ExistingFile, FrozenSettings


class KafkaSettings(FrozenSettings):
    """Mixed into the settings of every process that talks to Kafka.

    Args:
        kafka_bootstrap_servers: ``KAFKA_BOOTSTRAP_SERVERS``, ``host:port`` separated by commas.
        kafka_username: ``KAFKA_USERNAME``: who we are to Kafka, with OAUTHBEARER the client id; unset means no SASL.
        kafka_password: ``KAFKA_PASSWORD``: of that username, with OAUTHBEARER the client's secret.
        kafka_sasl_mechanism: ``KAFKA_SASL_MECHANISM``, by which the password is proved.
        kafka_token_url: ``KAFKA_TOKEN_URL``, for OAUTHBEARER: where a token is got for client id and secret (OAuth 2.0,
            client credentials), anew before each one expires; ``https://`` only.
        kafka_token_scope: ``KAFKA_TOKEN_SCOPE``, asked for there, where the endpoint wants one.
        kafka_token_extensions: ``KAFKA_TOKEN_EXTENSIONS``: ``name=value`` separated by commas, sent to the broker with
            the token (Confluent Cloud wants ``logicalCluster`` and ``identityPoolId``).
        kafka_security_protocol: ``KAFKA_SECURITY_PROTOCOL``: default by whether there is a username. With TLS, the
            broker's certificate is verified by the machine's authorities (``SSL_CERT_FILE`` names others).
        kafka_certificate_file: ``KAFKA_CERTIFICATE_FILE``, PEM of the client's own certificate, for mutual TLS.
        kafka_certificate_key_file: ``KAFKA_CERTIFICATE_KEY_FILE``, PEM of its key.
    """

    kafka_bootstrap_servers: str
    kafka_username: str = ""
    kafka_password: SecretStr = SecretStr("")
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = "PLAIN"
    kafka_token_url: Annotated[str, StringConstraints(pattern=r"^https://[^\s/@]+\S*$")] | None = None
    kafka_token_scope: str | None = None
    kafka_token_extensions: str | None = None
    kafka_security_protocol: Literal["PLAINTEXT", "SASL_PLAINTEXT", "SSL", "SASL_SSL"] | None = None
    kafka_certificate_file: ExistingFile | None = None
    kafka_certificate_key_file: ExistingFile | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        protocol = self._protocol()
        if (self.kafka_certificate_file is None) != (self.kafka_certificate_key_file is None):
            raise ValueError("KAFKA_CERTIFICATE_FILE and KAFKA_CERTIFICATE_KEY_FILE are given together or not at all")
        if self.kafka_certificate_file is not None and not protocol.endswith("SSL"):
            raise ValueError(f"KAFKA_CERTIFICATE_FILE needs KAFKA_SECURITY_PROTOCOL=SSL or SASL_SSL; it is {protocol}")
        if self.kafka_username and not protocol.startswith("SASL"):
            raise ValueError(f"KAFKA_USERNAME needs KAFKA_SECURITY_PROTOCOL=SASL_SSL; it is {protocol}")
        if protocol.startswith("SASL") and not self.kafka_username:
            raise ValueError(f"KAFKA_SECURITY_PROTOCOL={protocol} needs KAFKA_USERNAME")
        self._token_fits()
        return self

    def _token_fits(self) -> None:
        by_token = self.kafka_sasl_mechanism == "OAUTHBEARER"
        given = self.kafka_token_url or self.kafka_token_scope or self.kafka_token_extensions
        if by_token and not (self.kafka_token_url and self.kafka_username and self.kafka_password.get_secret_value()):
            raise ValueError(
                "KAFKA_SASL_MECHANISM=OAUTHBEARER needs KAFKA_TOKEN_URL, and KAFKA_USERNAME and KAFKA_PASSWORD: the"
                " client's id and secret there"
            )
        if given and not by_token:
            raise ValueError(f"KAFKA_TOKEN_… needs KAFKA_SASL_MECHANISM=OAUTHBEARER; it is {self.kafka_sasl_mechanism}")

    def _protocol(self) -> str:
        return self.kafka_security_protocol or ("SASL_PLAINTEXT" if self.kafka_username else "PLAINTEXT")

    def kafka_client(self) -> dict[str, str]:
        """Return the connection part of a confluent-kafka configuration (holds the password: never log it)."""
        protocol = self._protocol()
        config = {"bootstrap.servers": self.kafka_bootstrap_servers, "security.protocol": protocol}
        authorities = os.environ.get("SSL_CERT_FILE")
        if authorities and protocol.endswith("SSL"):  # librdkafka looks in well-known places and reads no variable
            config["ssl.ca.location"] = authorities
        if self.kafka_certificate_file is not None:
            config |= {
                "ssl.certificate.location": str(self.kafka_certificate_file),
                "ssl.key.location": str(self.kafka_certificate_key_file),
            }
        if self.kafka_sasl_mechanism == "OAUTHBEARER":
            config |= self._token(authorities)
        elif self.kafka_username:
            config |= {
                "sasl.mechanism": self.kafka_sasl_mechanism,
                "sasl.username": self.kafka_username,
                "sasl.password": self.kafka_password.get_secret_value(),
            }
        return config

    def _token(self, authorities: str | None) -> dict[str, str]:
        """What librdkafka's own client of a token endpoint needs (KIP-768); it is no part of the TLS to Kafka."""
        config = {
            "sasl.mechanism": self.kafka_sasl_mechanism,
            "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.token.endpoint.url": self.kafka_token_url,
            "sasl.oauthbearer.client.id": self.kafka_username,
            "sasl.oauthbearer.client.secret": self.kafka_password.get_secret_value(),
            "sasl.oauthbearer.scope": self.kafka_token_scope,
            "sasl.oauthbearer.extensions": self.kafka_token_extensions,
            "https.ca.location": authorities,
        }
        return {name: value for name, value in config.items() if value}
