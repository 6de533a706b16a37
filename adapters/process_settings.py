"""Settings of a process: environment variables, read once, blank = unset, every problem listed at once.

No secret has a default, and no value is repeated in a message.
"""

import os
import stat
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, StringConstraints, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from adapters.setting_names import unread
from constitution.errors import InvalidRequestError, Issue


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except OSError as error:  # pydantic's own FilePath lets it out: a name too long, a folder closed to us
        raise ValueError(f"cannot be read: {error.strerror}") from None


def _file(path: Path) -> Path:
    if not stat.S_ISREG(_mode(path)):
        raise ValueError("is no regular file")
    return path


def _folder(path: Path) -> Path:
    if not stat.S_ISDIR(_mode(path)):
        raise ValueError("is no folder")
    return path


ExistingFile = Annotated[Path, AfterValidator(_file)]
ExistingFolder = Annotated[Path, AfterValidator(_folder)]


class FrozenSettings(BaseSettings):
    """Base of all settings: they do not change, and a blank variable is unset."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _blank_is_unset(cls, data: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in data.items() if not isinstance(value, str) or value.strip()}


class ProcessSettings(FrozenSettings):
    """Settings that the worker and every service read.

    Args:
        namespace: ``NAMESPACE``, prefix in shared servers; empty in production.
        environment_file: ``ENVIRONMENT_FILE``, path of ``environment.toml``.
        log_level: ``LOG_LEVEL``: what is less than this is not logged.
        host: ``HOST``, the address to listen on; ``0.0.0.0`` in a container.
    """

    namespace: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{0,32}$")] = ""
    environment_file: ExistingFile
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    host: str = "127.0.0.1"


_S = TypeVar("_S", bound=FrozenSettings)


def read_settings(kind: type[_S]) -> _S:
    """Read settings from the process's environment.

    Raises:
        InvalidRequestError: with every problem, each under the name of its variable, also of variables that no process
            reads; no value is repeated.
    """
    issues = list(unread(os.environ))
    found: _S | None = None
    try:
        found = kind()
    except ValidationError as error:
        issues += [
            Issue(
                code=item["type"],
                path=str(item["loc"][0]).upper() if item["loc"] else "settings",  # what follows is inside the value
                message=item["msg"],
            )
            for item in error.errors(include_url=False, include_input=False, include_context=False)
        ]
    except SettingsError as error:  # a list or a table that is no JSON
        issues.append(Issue(code="unreadable-setting", path="settings", message=str(error)))
    if found is None or issues:
        raise InvalidRequestError("the settings cannot be used", issues=issues)
    return found
