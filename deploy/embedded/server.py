"""What a supervised server is: how to prepare it, start it, ask whether it answers, and what settings it yields."""

import asyncio
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

from deploy.bootstrap import home
from deploy.embedded.leftovers import MARKER
from deploy.embedded.stack_directory import StackDirectory

# All that a server gets from the caller's environment: no secret of the caller's shell reaches a child.
INHERITED = (
    "HOME", "LANG", "LC_ALL", "PATH", "TMPDIR", "TZ", "XDG_CACHE_HOME",
    "SSL_CERT_DIR", "SSL_CERT_FILE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
)  # fmt: skip


class ServerError(Exception):
    """A server cannot be prepared or started; the text says what to do."""


class NotAnswering(Exception):  # noqa: N818 - a state that passes, not an error
    """The server runs but does not answer its protocol yet."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """How one process is started.

    Args:
        argv: Program and arguments; never a secret, every user of the machine can read them.
        environment: Settings on top of `INHERITED`; secrets may travel here.
        user: (uid, gid) to run under instead of the caller's; only root may give one.
        cwd: Working directory.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    user: tuple[int, int] | None = None
    cwd: Path | None = None


class Server(ABC):
    """One real server of the stack.

    Args:
        directory: Where it keeps its files, ports and passwords.
        say: Called with one line of progress for people.
    """

    name: ClassVar[str]
    # Servers that must answer before this one starts.
    after: ClassVar[tuple[str, ...]] = ()
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    # What stops it at the latest; then it is killed.
    stop_grace: ClassVar[timedelta] = timedelta(seconds=10)
    # From started to answering; generous, because the machine may be busy with a build.
    start_deadline: ClassVar[timedelta] = timedelta(seconds=90)

    def __init__(self, directory: StackDirectory, say: Callable[[str], None]) -> None:
        self.directory = directory
        self.say = say

    def fetch(self) -> None:  # noqa: B027 - most servers need none
        """Download and build what is kept in the cache. Blocks; idempotent."""

    async def prepare(self) -> None:  # noqa: B027 - most servers need none
        """Initialise: everything that must be there before the start, after `fetch`. Idempotent."""

    async def before_start(self) -> None:  # noqa: B027 - most servers need none
        """What must be done when the servers in `after` answer, before this one starts. Idempotent."""

    def relative(self, path: Path) -> str:
        """A path of the stack as seen from the server's own folder.

        A server that works in its own folder and is given such names is not told what the folders above are called.
        Servers split names at commas and colons, take them for patterns or URIs, and read them in other encodings.
        """
        return os.path.relpath(path, self.directory.data(self.name))

    @abstractmethod
    def command(self) -> Command:
        """How to start it."""

    @abstractmethod
    async def check(self) -> None:
        """Ask it something in its own protocol.

        Raises:
            Exception: Any error of its client, or NotAnswering: it is not ready.
        """

    async def settle(self) -> None:  # noqa: B027 - most servers need none
        """Make what clients need inside it (roles, databases), once it answers. Idempotent."""

    @abstractmethod
    def settings(self) -> dict[str, str]:
        """The settings by which others reach it."""

    def urls(self) -> dict[str, str]:
        """Addresses for people, without secrets."""
        return {}


def base_environment(directory: StackDirectory) -> dict[str, str]:
    """The environment that every child starts from."""
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return inherited | {"HOME": str(home()), MARKER: directory.mark}


def guarded(argv: tuple[str, ...], death_signal: signal.Signals, user: tuple[int, int] | None = None) -> list[str]:
    """Wrap `argv` so that the kernel signals the process when the thread that started it ends.

    The signal follows the *thread*: start it from a thread that lives as long as the supervisor.
    """
    wrapped = ["setpriv", "--pdeathsig", death_signal.name.removeprefix("SIG")]
    if user is not None:
        wrapped += ["--reuid", str(user[0]), "--regid", str(user[1]), "--clear-groups"]
    return [*wrapped, "--", *argv]


async def run_tool(
    directory: StackDirectory,
    command: Command,
    *,
    deadline: timedelta = timedelta(minutes=15),
    report: Callable[[str], None] | None = None,
) -> str:
    """Run a program to its end and return what it printed.

    Args:
        directory: Whose environment it gets.
        command: What to run.
        deadline: After this it is killed.
        report: Called with each line as it is printed.

    Raises:
        ServerError: It failed or took too long; with its last lines.
    """
    process = await asyncio.create_subprocess_exec(
        *guarded(command.argv, signal.SIGKILL, command.user),
        env=base_environment(directory) | dict(command.environment),
        cwd=command.cwd,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None  # noqa: S101 - a pipe was asked for above
    lines: list[str] = []
    try:
        async with asyncio.timeout(deadline.total_seconds()):
            async for raw in process.stdout:
                lines.append(raw.decode(errors="replace").rstrip())
                if report is not None:
                    report(lines[-1])
            code = await process.wait()
    except TimeoutError:
        raise ServerError(f"{command.argv[0]} took longer than {deadline}: {_tail(lines)}") from None
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if code != 0:
        raise ServerError(f"{' '.join(command.argv[:3])} failed with exit code {code}: {_tail(lines)}")
    return "\n".join(lines)


def _tail(lines: list[str]) -> str:
    return " | ".join(lines[-5:]) or "it printed nothing"
