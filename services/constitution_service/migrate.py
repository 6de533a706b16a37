"""``python -m services.constitution_service.migrate``: brings the database to the newest schema, by dbmate.

Safe to run by several at once and again (dbmate takes a lock). Expand first, contract in a later release, so that old
and new service processes can run side by side.
"""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from pydantic import SecretStr

from adapters.postgres_password import DatabasePasswordSettings, PasswordFile
from adapters.process_settings import ExistingFolder, read_settings
from constitution.errors import ConstitutionError

_TIMEOUT_SECONDS = 300


class MigrationSettings(DatabasePasswordSettings):
    """Settings of the migration alone.

    Args:
        database_migration_url: ``DATABASE_MIGRATION_URL`` of the schema's owner.
        migrations_directory: ``MIGRATIONS_DIRECTORY``; default: the checkout's.
    """

    database_migration_url: SecretStr
    migrations_directory: ExistingFolder = Path(__file__).resolve().parents[2] / "deploy" / "sql" / "migrations"


def migrate(settings: MigrationSettings) -> int:
    """Run dbmate and return its exit code. Address and password travel in the environment, where no list shows them.

    Raises:
        UnavailableError: the file with the password cannot be read.
    """
    command = [
        str(Path(sysconfig.get_path("scripts")) / "dbmate"),
        "--env",
        "DATABASE_MIGRATION_URL",
        "--migrations-dir",
        ".",  # from there: dbmate takes a comma in the path for the end of it
        "--no-dump-schema",
        "--migration-lock",
        "--wait",
        "up",
    ]
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        # Where Go looks for the authorities of ?sslmode=verify-full.
        **{name: os.environ[name] for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if name in os.environ},
        "DATABASE_MIGRATION_URL": settings.database_migration_url.get_secret_value(),
    }
    if settings.database_password_file is not None:
        environment["PGPASSWORD"] = PasswordFile(settings.database_password_file)()
    folder = settings.migrations_directory
    done = subprocess.run(command, check=False, cwd=folder, env=environment, timeout=_TIMEOUT_SECONDS)  # noqa: S603 - ours
    return done.returncode


def main() -> int:
    """Read the settings and migrate; exit code 2 when a setting, or the file that it names, cannot be used."""
    try:
        return migrate(read_settings(MigrationSettings))
    except ConstitutionError as error:
        sys.stderr.write(error.diagnostics() + "\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
