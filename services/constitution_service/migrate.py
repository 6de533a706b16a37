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

from adapters.process_settings import FrozenSettings, read_settings
from constitution.errors import ConstitutionError

_TIMEOUT_SECONDS = 300


class MigrationSettings(FrozenSettings):
    """Settings of the migration alone.

    Args:
        database_migration_url: ``DATABASE_MIGRATION_URL`` of the schema's owner.
        migrations_directory: ``MIGRATIONS_DIRECTORY``; default: the checkout's.
    """

    database_migration_url: SecretStr
    migrations_directory: Path = Path(__file__).resolve().parents[2] / "deploy" / "sql" / "migrations"


def migrate(settings: MigrationSettings) -> int:
    """Run dbmate and return its exit code. The address travels in the environment: it holds a password."""
    command = [
        str(Path(sysconfig.get_path("scripts")) / "dbmate"),
        "--env",
        "DATABASE_MIGRATION_URL",
        "--migrations-dir",
        str(settings.migrations_directory),
        "--no-dump-schema",
        "--migration-lock",
        "--wait",
        "up",
    ]
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "DATABASE_MIGRATION_URL": settings.database_migration_url.get_secret_value(),
    }
    done = subprocess.run(command, check=False, env=environment, timeout=_TIMEOUT_SECONDS)  # noqa: S603 - our own binary
    return done.returncode


def main() -> int:
    """Read the settings and migrate; exit code 2 when a setting is missing."""
    try:
        settings = read_settings(MigrationSettings)
    except ConstitutionError as error:
        sys.stderr.write(error.diagnostics() + "\n")
        return 2
    return migrate(settings)


if __name__ == "__main__":
    sys.exit(main())
