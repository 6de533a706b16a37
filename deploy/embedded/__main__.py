"""The embedded stack's command line: `python -m deploy.embedded up|down|clean|status|restart|kill|worker|fetch`."""

import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from deploy.bootstrap import BootstrapError, home
from deploy.embedded.catalogue import ALL_NAMES, INFRASTRUCTURE, INFRASTRUCTURE_NAMES
from deploy.embedded.control import NotRunning, StackError
from deploy.embedded.machine import check_machine
from deploy.embedded.ports import Ports
from deploy.embedded.server import Server, ServerError
from deploy.embedded.sigstore.servers import SIGSTORE_NAMES
from deploy.embedded.stack import Progress, ServerStatus, Stack, read_json
from deploy.embedded.stack_directory import CHECKOUT, StackDirectory

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

Directory = Annotated[Path, typer.Option(help="Where the stack keeps everything.", envvar="STACK_DIRECTORY")]
DEFAULT_DIRECTORY = CHECKOUT / "var"

INTERRUPTED = 130  # what typer makes of Ctrl-C


def _news(progress: Progress) -> None:
    typer.echo(f"{progress.seconds:7.1f} s  {progress.server:<22} {progress.text}")


def _stack(directory: Path) -> Stack:
    return Stack(directory, attached=False, progress=_news)


@app.command()
def up(
    directory: Directory = DEFAULT_DIRECTORY,
    infrastructure: Annotated[bool, typer.Option(help="Only the servers, not our services.")] = False,
    embedded: Annotated[
        list[str] | None, typer.Option(help="The stack's own server, although it was given yours before.")
    ] = None,
    sigstore: Annotated[bool, typer.Option(help="A private Sigstore besides, for keyless signatures.")] = False,
) -> None:
    """Start every server that does not run yet, and return when each answers."""
    stack = _stack(directory)
    stack.forget(*(embedded or ()))
    if sigstore:  # first, because the trust policy that constitution-service makes pins its root
        stack.start(*SIGSTORE_NAMES)
    stack.start(*(INFRASTRUCTURE_NAMES if infrastructure else ALL_NAMES))
    _show(stack.status())
    typer.echo(f"settings: {stack.directory / 'stack.env'}")
    if not infrastructure:
        typer.echo("no agent calls yet, and a watched release needs some: make traffic")
    if sigstore:
        for line in keyless_lines(stack.settings()):
            typer.echo(line)


def keyless_lines(settings: Mapping[str, str]) -> list[str]:
    """Return what a person must know to sign keylessly here.

    Args:
        settings: of the stack, which runs a private Sigstore.
    """
    trust = Path(settings.get("TRUST_FILE", ""))
    if trust.is_file() and settings["SIGSTORE_ISSUER_URL"] not in trust.read_text(encoding="utf-8"):
        return [
            f"{trust} was made without this Sigstore, and knows nobody who logs in there; to begin anew: make clean",
        ]
    return [f"log in at {settings['SIGSTORE_ISSUER_URL']} with the password SIGSTORE_LOGIN_PASSWORD of stack.env"]


@app.command()
def fetch(directory: Directory = DEFAULT_DIRECTORY) -> None:
    """Download and build all servers into the cache, in parallel."""
    check_machine()
    began = time.monotonic()
    stack_directory = StackDirectory(directory)

    def fetch_one(server: type[Server]) -> None:
        def say(text: str) -> None:
            _news(Progress(server=server.name, text=text, seconds=time.monotonic() - began))

        server(stack_directory, say).fetch()
        say("is in the cache")

    with ThreadPoolExecutor(len(INFRASTRUCTURE)) as pool:
        list(pool.map(fetch_one, INFRASTRUCTURE))


@app.command()
def down(directory: Directory = DEFAULT_DIRECTORY) -> None:
    """Stop every server; their data stays."""
    _stack(directory).stop()


@app.command()
def clean(directory: Directory = DEFAULT_DIRECTORY) -> None:
    """Stop every server and delete all of their data."""
    _stack(directory).erase()


@app.command()
def status(directory: Directory = DEFAULT_DIRECTORY) -> None:
    """Show every server's state; exit 1 if one does not run or does not answer. JSON when piped."""
    statuses = _stack(directory).status()
    if sys.stdout.isatty():
        _show(statuses)
    else:
        typer.echo(read_json(statuses))
    ill = [entry for entry in statuses if not entry.healthy]
    for line in advice(ill):
        typer.echo(line, err=True)
    if ill or not statuses:
        raise typer.Exit(1)


def advice(ill: Sequence[ServerStatus]) -> list[str]:
    """Return what to do about servers that do not answer; one whose process lives may only lack one that has ended."""
    ended = [entry.name for entry in ill if entry.pid is None]
    lines = []
    for entry in sorted(ill, key=lambda entry: entry.pid is not None):
        waits = ended and entry.pid is not None
        what = f"first start {', '.join(ended)}" if waits else f"make restart NAME={entry.name}"
        lines.append(f"{entry.name} is {entry.state}: {entry.detail}; {what}")
    return lines


@app.command()
def restart(name: str, directory: Directory = DEFAULT_DIRECTORY) -> None:
    """Stop one server if it runs and start it; its port and data stay."""
    _stack(directory).restart(name)


@app.command()
def kill(
    name: str, number: Annotated[str, typer.Option("--signal")] = "KILL", directory: Directory = DEFAULT_DIRECTORY
) -> None:
    """Send a signal to one server's process, to see what happens."""
    _stack(directory).kill(name, signal.Signals[f"SIG{number.removeprefix('SIG')}"])


@app.command()
def worker(directory: Directory = DEFAULT_DIRECTORY) -> None:
    """Become one more Temporal worker, with the settings of the running stack."""
    settings = Stack(directory).settings()
    if "KEYS_DIRECTORY" not in settings:
        raise StackError(f"no stack with our services was started in {directory}; make up")
    own = {
        "CLIENT_KEY_FILE": f"{settings['KEYS_DIRECTORY']}/worker.jwk",
        "EVIDENCE_DIRECTORY": str(directory.resolve() / f"worker-{os.getpid()}"),
        "METRICS_PORT": str(Ports().any()),
    }
    os.execve(sys.executable, [sys.executable, str(CHECKOUT / "worker.py")], os.environ | settings | own)  # noqa: S606


def _show(statuses: list[ServerStatus]) -> None:
    table = Table("server", "state", "pid", "up", "memory", "address")
    for entry in statuses:
        table.add_row(
            entry.name,
            entry.state if not entry.detail else f"{entry.state}: {entry.detail}",
            str(entry.pid or ""),
            f"{entry.uptime_s:.0f} s" if entry.uptime_s is not None else "",
            f"{entry.rss_mb:.0f} MB" if entry.rss_mb is not None else "",
            " ".join(entry.urls.values()),
        )
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def main() -> NoReturn:
    """Run the command line; exit 1 with a reason where something is wrong, 130 after Ctrl-C."""
    code = 0
    if sys.stdout is None:  # closed by the caller: nothing is to be said
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - until the end
    try:
        os.environ["HOME"] = str(home())  # what downloads here keeps things in it, too
        code = app(standalone_mode=False) or 0
    except (StackError, ServerError, NotRunning, BootstrapError) as error:
        typer.echo(f"error: {error}", err=True)
        code = 1
    except typer.TyperException as error:
        typer.echo(f"error: {error}; see --help", err=True)
        code = 2
    if code == INTERRUPTED:
        typer.echo("interrupted; nothing that this command started is left running", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
