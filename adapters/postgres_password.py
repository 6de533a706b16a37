"""The database's password in a file: whoever gives it out replaces it, and each new connection reads it anew.

So come tokens that expire (a cloud's IAM, as its own tool or a sidecar writes them) and secrets that Kubernetes mounts.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import SecretStr, model_validator

from adapters.process_settings import ExistingFile, FrozenSettings
from constitution.errors import UnavailableError

MAX_BYTES = 64 * 1024  # of a token; the longest of any cloud are a few thousand


class DatabasePasswordSettings(FrozenSettings):
    """Mixed into the settings of every process that talks to PostgreSQL.

    Args:
        database_password_file: ``DATABASE_PASSWORD_FILE``: its password, in the place of one in the address; read anew
            for each new connection.
    """

    database_password_file: ExistingFile | None = None

    @model_validator(mode="after")
    def _one_password(self) -> Self:
        values: Mapping[str, object] = self.__dict__
        for name, value in values.items():
            if self.database_password_file is None or not isinstance(value, SecretStr):
                continue
            if name.startswith("database_") and urlsplit(value.get_secret_value()).password is not None:
                raise ValueError(f"{name.upper()} holds a password, and DATABASE_PASSWORD_FILE another: give one")
        return self


class PasswordFile:
    """Returns, whenever it is called, what is in a file at that moment, without the newline at its end.

    Args:
        file: its path.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def __call__(self) -> str:
        """Read the file.

        Raises:
            UnavailableError: it is not there, or holds no password; that may pass.
        """
        try:
            with self._file.open(encoding="utf-8") as opened:
                password = opened.read(MAX_BYTES + 1).rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise UnavailableError(f"DATABASE_PASSWORD_FILE cannot be read: {type(error).__name__}") from None
        if not password or "\0" in password or len(password) > MAX_BYTES:
            raise UnavailableError(
                "DATABASE_PASSWORD_FILE holds no password: it is empty, holds a zero byte or is far too long",
                hint='wc -c "$DATABASE_PASSWORD_FILE"',
            )
        return password
