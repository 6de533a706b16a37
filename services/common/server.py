"""Runs a service as a process: settings errors all at once (exit 2), JSON logs, SIGTERM drains and exits 0."""

import asyncio
import gc
import signal
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from adapters import memory
from adapters.process_settings import read_settings
from constitution.errors import ConstitutionError
from services.common.deadlines import DeadlinedProtocol
from services.common.logs import configure_logging
from services.common.settings import Settings

GRACE_SECONDS = 10  # requests in flight at SIGTERM may take this long; supervisors kill after more
EXIT_SETTINGS = 2


class _Server(uvicorn.Server):
    """uvicorn ends by raising the signal it caught; a drained service has done its work and exits 0."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        handled = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, before in handled.items():
                signal.signal(number, before)


def run(app_factory: Callable[[], FastAPI], settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code (1: it could not start).

    Args:
        app_factory: builds the app; called once, before the port is opened.
        settings: ``host`` and ``port`` are used here.
    """
    try:
        app = app_factory()
    except ConstitutionError as error:
        sys.stderr.write(error.diagnostics() + "\n")
        return EXIT_SETTINGS
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=DeadlinedProtocol,
        log_config=None,  # ours
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        lifespan="on",
    )
    gc.collect()
    gc.freeze()  # 100,000 objects of the program itself: each full collection would stop all answers for 50 ms
    server = _Server(config)
    asyncio.run(server.serve())
    return 0 if server.started else 1


def main(service: str, kind: type[Settings], app_factory: Callable[..., FastAPI]) -> int:
    """Read settings, set up logs, build ``app_factory(settings)``, serve; return the exit code."""
    memory.limit_free_memory()
    try:
        settings = read_settings(kind)
    except ConstitutionError as error:
        sys.stderr.write(error.diagnostics() + "\n")
        return EXIT_SETTINGS
    configure_logging(service, settings.log_level)
    return run(lambda: app_factory(settings), settings)
