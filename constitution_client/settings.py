"""The client's settings: one frozen object, read once, blank = unset, every problem listed at once.

Environment variables win over the file named by ``--env-file`` (or ``CONSTITUTION_ENV_FILE``), for example the
``var/stack.env`` that the embedded servers write. Temporal is found as Temporal's own command line finds it
(``temporalio.envconfig``: TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TLS, API key, profiles).
"""

import os
from functools import cached_property
from pathlib import Path
from typing import Literal

from dotenv import dotenv_values
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from constitution.environment import Environment, issues_of
from constitution.errors import InvalidRequestError
from constitution.names import Names
from constitution_client.context import env_file
from constitution_client.files import FileRefusedError, read_text

LOAD_STACK = "export CONSTITUTION_ENV_FILE=var/stack.env  # the settings that make up writes"


class UsageError(InvalidRequestError):
    """The command line or a setting is wrong: exit code 2, nothing was tried."""


class ClientSettings(BaseSettings):
    """Settings of the command line.

    Args:
        constitution_service_url: where constitution-service answers.
        client_key_file: JWK that mints this operator's service tokens (mode 0600).
        environment_file: ``environment.toml``; its ``trust`` is used when ``trust_file`` is not given.
        trust_file: ``trust.toml``.
        namespace: prefix of names in shared servers; empty in production.
        sigstore_trust_config_file: of the Sigstore instance that signs; unset: the public one.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    constitution_service_url: str | None = None
    client_key_file: Path | None = None
    environment_file: Path | None = None
    trust_file: Path | None = None
    namespace: str = Field(default="", max_length=32)
    sigstore_trust_config_file: Path | None = None
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "WARNING"

    @field_validator("namespace")
    @classmethod
    def _namespace(cls, value: str) -> str:
        Names(value)
        return value

    @cached_property
    def names(self) -> Names:
        """Names in shared systems."""
        return Names(self.namespace)

    def environment(self) -> Environment:
        """Read ``environment.toml``.

        Raises:
            UsageError: no file is named, or it cannot be read.
            InvalidRequestError: it is not valid; every problem is listed.
        """
        if self.environment_file is None:
            raise UsageError(
                "no environment is named",
                hint=f"{LOAD_STACK}; or set ENVIRONMENT_FILE",
            )
        return Environment.parse(read_text(self.environment_file, what="environment file"))

    def trust_path(self) -> Path:
        """Return the path of the trust policy: TRUST_FILE, else the one that ``environment.toml`` names.

        Raises:
            UsageError: neither is given.
        """
        if self.trust_file is not None:
            return self.trust_file
        if self.environment_file is None:
            raise UsageError(
                "no trust policy is named",
                hint="give it with --trust, or set TRUST_FILE or ENVIRONMENT_FILE",
            )
        return self.environment_file.parent / self.environment().trust

    def environment_name(self) -> str:
        """Return the environment's name: of ``environment.toml``, else of the trust policy.

        Raises:
            UsageError: neither is given.
        """
        if self.environment_file is not None:
            return self.environment().environment
        from signatures.trust_files import load_trust

        return load_trust(self.trust_path()).environment


def settings() -> ClientSettings:
    """Read the settings.

    Raises:
        UsageError: with every problem listed.
    """
    try:
        return ClientSettings(_env_file=_existing_env_file())
    except ValidationError as error:
        raise UsageError("settings are wrong", issues=issues_of(error)) from error


def variables() -> dict[str, str]:
    """Return the process environment on top of the file's variables: what ``temporalio.envconfig`` is to read."""
    named = _existing_env_file()
    from_file = dotenv_values(named) if named is not None else {}
    return {name: value for name, value in {**from_file, **os.environ}.items() if value is not None}


def _existing_env_file() -> Path | None:
    named = env_file()
    if named is None:
        return None
    try:
        read_text(named, what="settings file")
    except FileRefusedError as error:
        raise UsageError(error.message, hint="make up  # writes var/stack.env; or leave --env-file away") from error
    return named
