"""The real PgBouncer, unpacked from the distribution's package, in front of a database of a test."""

import asyncio
import os
import pwd
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import asyncpg

from deploy.embedded.server import Command
from tests.ports import free_port
from tests.world.debian import Unpacked
from tests.world.started import started


class PgBouncer:
    """A pooler of one database.

    Args:
        url: of the database, as the role that its clients are.
        mode: ``session`` or ``transaction``.
        folder: takes its configuration and its log.
    """

    def __init__(self, url: str, *, mode: str, folder: Path) -> None:
        self._url, self._mode, self._folder = url, mode, folder

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Run it; yields the address that leads through it."""
        packages = await asyncio.to_thread(Unpacked, "pgbouncer", "pgbouncer", "libc-ares2", "libevent-2.1-7")
        parts, port = urlsplit(self._url), free_port()
        name = parts.path.removeprefix("/")
        user, password = parts.username or "", unquote(parts.password or "")
        configuration = f"""
[databases]
{name} = host=127.0.0.1 port={parts.port} dbname={name} user={user} password={password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {self._mode}
default_pool_size = 20
"""
        # As root it must run as another user, who cannot look into the test's folder: it reads from its stdin's file.
        file = self._folder / "pgbouncer.ini"
        file.write_text(configuration, encoding="utf-8")
        file.chmod(0o644)  # it opens the file anew; the folder keeps others out
        descriptor = os.open(file, os.O_RDONLY)
        argv = (packages.program("usr/sbin/pgbouncer"), f"/proc/self/fd/{descriptor}")
        account = pwd.getpwnam("nobody")
        through = self._url.replace(f":{parts.port}/", f":{port}/")

        async def ready() -> None:
            await (await asyncpg.connect(through, timeout=2)).close()

        user_of = (account.pw_uid, account.pw_gid) if os.geteuid() == 0 else None
        command = Command(argv=argv, user=user_of, cwd=Path("/"), environment=packages.environment)
        log = self._folder / "pgbouncer.log"
        try:
            async with started(command, environment={"PATH": os.defpath}, log=log, ready=ready, files=(descriptor,)):
                yield through
        finally:
            os.close(descriptor)
