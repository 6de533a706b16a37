"""The one process that owns every server of a stack.

It starts what it is asked to start, restarts nothing by itself, and ends with all its children: when it is told
to stop, on SIGINT and SIGTERM, when the process that started it ends before saying `detach`, and, through the
kernel's parent-death signal and the guardian, when it is killed.

Run: `python -m deploy.embedded.supervisor DIRECTORY` with a pipe as standard input (deploy.embedded.stack does).
"""

import asyncio
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from deploy.bootstrap import home
from deploy.embedded.catalogue import CATALOGUE
from deploy.embedded.control import LOCK, NAME, NotRunning, call, listener
from deploy.embedded.envfile import write_settings
from deploy.embedded.external import REPLACED_BY, Remembered
from deploy.embedded.guard import Guard
from deploy.embedded.leftovers import end
from deploy.embedded.process import Process
from deploy.embedded.server import ServerError
from deploy.embedded.stack_directory import StackDirectory
from deploy.embedded.unit import State, Unit

# How long the servers of a killed predecessor may take to end by themselves, in seconds.
PREDECESSOR_GRACE = 5.0
# Between two tries to become the supervisor, in seconds.
LOCK_PAUSE = 0.05

Say = Callable[[dict[str, Any]], None]


class Supervisor:
    """Owns the servers of one directory; everything in it runs on the main thread's event loop."""

    def __init__(
        self, directory: StackDirectory, loop: asyncio.AbstractEventLoop, kind: type[Process] = Process
    ) -> None:
        self._loop = loop
        self._kind = kind
        self._directory = directory
        self._units: dict[str, Unit] = {}
        self._remembered = Remembered(directory.run)
        self._external = self._remembered.read()
        self._overrides: dict[str, str] = {}
        self._starts: dict[str, asyncio.Task[None]] = {}
        self._listeners: set[Say] = set()
        self._stop = asyncio.Event()
        self._attached = True
        self._began = time.monotonic()
        self._guard = Guard(directory.mark)

    async def run(self) -> None:
        """Serve the control channel until the stop is asked for; then end all servers."""
        loop = self._loop
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_reader(sys.stdin.fileno(), self._owner_spoke)
        server = await asyncio.start_unix_server(self._serve, sock=listener(self._directory.run))
        await self._stop.wait()
        server.close()
        await self._stop_all()

    def _owner_spoke(self) -> None:
        """The owner never writes: its end of the pipe was closed, so it has ended."""
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        if self._attached:
            self._stop.set()

    # --- control channel

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def send(message: dict[str, Any]) -> None:
            writer.write(json.dumps(message).encode() + b"\n")

        def progress(message: dict[str, Any]) -> None:
            send({"progress": message})

        self._listeners.add(progress)
        try:
            request = json.loads(await reader.readline())
            try:
                send({"result": await self._answer(request)})
            except ServerError as error:
                send({"error": str(error)})
            await writer.drain()
        except (ConnectionError, json.JSONDecodeError):
            return  # the asker has left; its request goes on or is undone by its own rule
        finally:
            self._listeners.discard(progress)
            with suppress(ConnectionError):
                writer.close()
                await writer.wait_closed()

    async def _answer(self, request: dict[str, Any]) -> Any:
        match request:
            case {"verb": "start", "names": list(names), "external": dict(external), "settings": dict(overrides)}:
                self._take_settings(external, overrides)
                await self._start(names)
            case {"verb": "begin", "names": list(names), "external": dict(external), "settings": dict(overrides)}:
                self._take_settings(external, overrides)
                for name in names:
                    self._begin(name)
            case {"verb": "restart", "name": str(name)}:
                await self._restart(name)
            case {"verb": "kill", "name": str(name), "signal": int(number)}:
                self._unit(name).send(number)
            case {"verb": "status"}:
                return await self._status()
            case {"verb": "ping"}:
                return {"attached": self._attached}
            case {"verb": "detach"}:
                self._attached = False
            case {"verb": "stop"}:
                self._stop.set()
            case _:
                raise ServerError(f"unknown request {request.get('verb')!r}")
        return None

    def _report(self, name: str, text: str) -> None:
        print(f"{datetime.now(UTC).isoformat(timespec='milliseconds')} {name} {text}", flush=True)
        message = {"server": name, "text": text, "seconds": round(time.monotonic() - self._began, 1)}
        for say in self._listeners:
            say(message)

    # --- servers

    def _unit(self, name: str) -> Unit:
        if name in self._external:
            raise ServerError(f"{name} is your own server; this stack does not control it")
        if name not in self._units:
            if name not in CATALOGUE:
                raise ServerError(f"there is no server {name!r}; there are {', '.join(CATALOGUE)}")
            server = CATALOGUE[name](self._directory, lambda text: self._report_from_any_thread(name, text))
            self._units[name] = Unit(server, self._guard, self._report, self._kind)
        return self._units[name]

    def _report_from_any_thread(self, name: str, text: str) -> None:
        self._loop.call_soon_threadsafe(self._report, name, text)

    def _take_settings(self, external: dict[str, dict[str, str]], overrides: dict[str, str]) -> None:
        self._external = self._remembered.take(external, self._units)
        self._overrides |= overrides
        self._write_settings()

    async def _start(self, names: Iterable[str]) -> None:
        """Start what was never started; name what has died, for restarting it is the user's decision."""
        wanted = [name for name in names if name not in self._external]
        dead = [unit for unit in map(self._unit, wanted) if unit.state is State.DEAD]
        if dead:
            names = "; ".join(f"{unit.server.name} is dead ({unit.detail})" for unit in dead)
            raise ServerError(f"{names}; to start it again: make restart NAME={dead[0].server.name}")
        if not wanted:
            return
        waits = [asyncio.create_task(self._started(name)) for name in wanted]
        # The first that fails ends the wait: a slow build of another must not hide it. What was begun goes on.
        ended, going_on = await asyncio.wait(waits, return_when=asyncio.FIRST_EXCEPTION)
        for wait in going_on:
            wait.cancel()
        problems = [str(wait.exception()) for wait in waits if wait in ended and wait.exception() is not None]
        if problems:
            raise ServerError("\n".join(dict.fromkeys(problems)))

    async def _started(self, name: str) -> None:
        """Wait until `name` answers, starting it and what it needs where that has not been asked for yet."""
        self._begin(name)
        if name in self._starts:
            await asyncio.shield(self._starts[name])

    def _begin(self, name: str) -> None:
        """Start `name` and what it needs, where that has not been asked for yet; do not wait."""
        if name in self._external or name in self._starts:
            return
        for needed in self._unit(name).server.after:
            self._begin(needed)
        self._launch(name)

    def _launch(self, name: str) -> None:
        unit = self._unit(name)

        async def needs() -> None:
            for needed in unit.server.after:
                await self._started(needed)
            self._write_settings()  # with all that is known now: this server reads them

        async def bring_up() -> None:
            await unit.bring_up(needs)
            self._write_settings()

        task = self._starts[name] = asyncio.create_task(bring_up())
        # Nobody may be waiting for it: its error is kept in the unit's state.
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())

    async def _restart(self, name: str) -> None:
        unit = self._unit(name)
        running = self._starts.get(name)
        if running is not None and not running.done():
            raise ServerError(f"{name} is {unit.state}; wait for it")
        await unit.take_down()
        self._launch(name)
        await self._started(name)

    def _write_settings(self) -> None:
        settings: dict[str, str] = {}
        for unit in self._units.values():
            settings |= unit.server.settings()
        for given in self._external.values():
            settings |= given
        settings |= self._overrides
        self._directory.settings.clear()
        self._directory.settings.update(settings)
        write_settings(self._directory.path / "stack.env", settings)

    async def _status(self) -> list[dict[str, Any]]:
        own = await asyncio.gather(*(unit.status() for unit in self._units.values()))
        blank: dict[str, Any] = {
            "pid": None,
            "uptime_s": None,
            "rss_mb": None,
            "urls": {},
            "log": None,
        }
        theirs = {name: f"your own server, by {REPLACED_BY[name][0]}; not looked at" for name in self._external}
        external = (
            blank | {"name": name, "state": str(State.EXTERNAL), "detail": detail} for name, detail in theirs.items()
        )
        return [*own, *external]

    async def _stop_all(self) -> None:
        """Stop in reverse order of need; servers that do not need each other stop together."""
        for start in self._starts.values():
            start.cancel()
        await asyncio.gather(*self._starts.values(), return_exceptions=True)
        left = dict(self._units)
        while left:
            needed = {name for unit in left.values() for name in unit.server.after}
            wave = [left.pop(name) for name in list(left) if name not in needed]
            await asyncio.gather(*(unit.take_down() for unit in wave))

    def finish(self) -> bool:
        """End the remaining processes of the servers, then the guardian. Returns whether all have ended."""
        return self._guard.finish()


def _lock(run: Path) -> IO[str] | None:
    """Become the supervisor of this directory: the lock, or None if another one answers.

    One that holds the lock and does not answer is about to end, or has just begun: ask again.
    """
    handle = (run / LOCK).open("w")
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
        with suppress(NotRunning):
            call(run, {"verb": "ping"}, lambda _: None)
            handle.close()
            return None
        time.sleep(LOCK_PAUSE)


def main(kind: type[Process] = Process) -> int:
    """Supervise the directory given as argument. Returns the exit code.

    Args:
        kind: How a server's process is started.
    """
    os.environ["HOME"] = str(home())  # what downloads here keeps things in it, too
    directory = StackDirectory(Path(sys.argv[1]))
    lock = _lock(directory.run)
    if lock is None:
        return 0  # somebody else's supervisor is already there: the asker talks to that one
    end(f"{directory.stack_id}:", grace=PREDECESSOR_GRACE)
    code = 1
    loop = asyncio.new_event_loop()
    supervisor = Supervisor(directory, loop, kind)
    try:
        loop.run_until_complete(supervisor.run())
        code = 0
    finally:
        clean = supervisor.finish()
        (directory.run / NAME).unlink(missing_ok=True)
        sys.stdout.flush()
        # A download in a thread cannot be cancelled; waiting for it would keep the user waiting.
        os._exit(code if clean else 1)


if __name__ == "__main__":
    main()
