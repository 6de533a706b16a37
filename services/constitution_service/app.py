"""Composition root: settings in, app out. Clients are closed in reverse."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial

import structlog
from fastapi import FastAPI

from adapters.postgres import CONNECT_TIMEOUT, Database
from constitution.api import ReadyReport
from constitution_follow.tasks import end
from constitution_follow.trust_watch import TrustMetrics
from services.common.app import create_app
from services.common.limits import BYTES, FORM, BodyLimits, Files
from services.common.metrics import new_registry
from services.constitution_service import process_heartbeat, ready, trust
from services.constitution_service.audit.drain import Drain
from services.constitution_service.audit.refusals import Refusals
from services.constitution_service.composition import make_context, make_database
from services.constitution_service.delivery.relay import Relay
from services.constitution_service.metrics import ServiceMetrics
from services.constitution_service.routes import (
    artifacts,
    audit,
    current,
    evidence,
    lease,
    load,
    passkeys,
    receipts,
    releases,
    updates,
)
from services.constitution_service.routes.anonymous_limits import AnonymousCallers
from services.constitution_service.routes.shortcut import Shortcut
from services.constitution_service.serving import notices
from services.constitution_service.settings import ServiceSettings

LIMITS = BodyLimits(
    by_path={
        "/v1/constitution/validate": 64 * 1024,  # a checksum
        "/v1/constitution/audit": 64 * 1024,
    },
    files={
        "/v1/constitution/artifacts": Files(FORM, 4 * 1024 * 1024),  # a document of 1 MiB and its signatures
        "/v1/constitution/validate": Files(FORM, 4 * 1024 * 1024),
        "/v1/constitution/blobs": Files(BYTES, 32 * 1024 * 1024),  # JUnit files, samples of a long watch
    },
)
ANONYMOUS = 32  # requests of callers without a token at once; a read takes milliseconds
BACKGROUND = 5  # connections of what runs beside the requests: relay, process heartbeat, spool, memory
_log = structlog.get_logger(__name__)


def create(settings: ServiceSettings) -> FastAPI:
    """Build the service.

    Raises:
        InvalidRequestError: a file or URL that the settings name cannot be used.
    """
    registry = new_registry()
    context, redis = make_context(settings, ServiceMetrics(registry))
    TrustMetrics(context.config.holder, registry)
    # No crowd of readers stands between the relay and its lease: connections are lent in order of asking.
    own = make_database(settings, f"constitution-service {os.getpid()} relay", connections=BACKGROUND)
    background = replace(context, database=own)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            databases = (context.database, background.database)
            for database in databases:
                await database.open()
                stack.push_async_callback(database.close)
            stack.push_async_callback(redis.aclose)
            await trust.start(context)
            await context.generation_guard.start()
            tasks = [
                asyncio.create_task(work)
                for work in (
                    context.generation_guard.run(),
                    context.memory.run(own),
                    notices.listen(own, context.memory),
                    Relay(background, settings.kafka_client()).run(),
                    process_heartbeat.beat(background),
                    Drain(background).run(),
                    trust.run(background),
                )
            ]
            stack.push_async_callback(_end, tasks, databases)
            await context.memory.start()
            _log.info("started", environment=context.environment, process=context.process)
            yield

    async def is_ready() -> ReadyReport:
        return await ready.report(context)

    app = create_app(
        title="constitution-service",
        ready=is_ready,
        lifespan=lifespan,
        registry=registry,
        limits=LIMITS,
        anonymous_at_once=ANONYMOUS,
        shortcut=partial(Shortcut, memory=context.memory, reads=context.metrics.current_reads),
    )
    app.state.config = context.config
    app.state.context = context
    app.state.anonymous_callers = AnonymousCallers()
    app.state.on_refused = Refusals(context).refused
    for part in (artifacts, lease, load, updates, current, releases, receipts, evidence, audit, passkeys):
        app.include_router(part.router)
    return app


async def _end(tasks: Sequence[asyncio.Task[None]], databases: Sequence[Database]) -> None:
    """End all background work; what waits for a PostgreSQL that has fallen silent is cut off from it."""
    ending = [asyncio.create_task(end(task)) for task in tasks]
    _, waiting = await asyncio.wait(ending, timeout=CONNECT_TIMEOUT.total_seconds())
    if waiting:
        for database in databases:
            database.cut()
    await asyncio.gather(*ending)
