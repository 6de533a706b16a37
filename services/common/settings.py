"""Settings of a service: environment variables, read once, blank = unset, every problem listed at once.

No secret has a default, and no value is repeated in a message.
"""

import os
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, StringConstraints, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from adapters.setting_names import unread
from constitution.errors import InvalidRequestError, Issue


class Settings(BaseSettings):
    """Base of every service's settings; subclasses add their own fields.

    Args:
        namespace: ``NAMESPACE``, prefix in shared servers; empty in production.
        environment_file: ``ENVIRONMENT_FILE``, path of ``environment.toml``.
        log_level: ``LOG_LEVEL``.
        host: ``HOST`` to listen on.
        port: ``PORT`` to listen on.
    """

    model_config = SettingsConfigDict(
        env_ignore_empty=True, frozen=True, extra="ignore", hide_input_in_errors=True, case_sensitive=False
    )

    namespace: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{0,32}$")] = ""
    environment_file: Path
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)]

    @model_validator(mode="before")
    @classmethod
    def _blank_is_unset(cls, data: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in data.items() if not isinstance(value, str) or value.strip()}


AnySettings = TypeVar("AnySettings", bound=BaseSettings)


def read_settings(kind: type[AnySettings]) -> AnySettings:
    """Read settings from the process's environment.

    Raises:
        InvalidRequestError: with every problem, each under the name of its variable, also of those nobody reads.
    """
    unknown = unread(os.environ)
    try:
        found = kind()
    except ValidationError as error:
        issues = unknown + tuple(
            Issue(
                code=item["type"],
                path="__".join(str(part) for part in item["loc"]).upper() or "settings",
                message=item["msg"],
            )
            for item in error.errors(include_url=False, include_input=False, include_context=False)
        )
        raise InvalidRequestError("the settings are not complete", issues=issues) from None
    except SettingsError as error:
        raise InvalidRequestError(f"the settings cannot be read: {error}") from error
    if unknown:
        raise InvalidRequestError("there are settings that nobody reads", issues=unknown)
    return found
