"""Composition root: settings in, app out. Clients are closed in reverse."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import structlog
from fastapi import FastAPI

from adapters.postgres import Database
from constitution.api import ReadyReport
from services.common.app import create_app
from services.common.limits import BYTES, FORM, BodyLimits, Files
from services.common.metrics import new_registry
from services.common.tasks import end
from services.constitution_service import process_heartbeat, ready
from services.constitution_service.audit.drain import Drain
from services.constitution_service.audit.refusals import Refusals
from services.constitution_service.composition import make_context
from services.constitution_service.delivery.relay import Relay
from services.constitution_service.metrics import ServiceMetrics
from services.constitution_service.routes import artifacts, audit, current, evidence, lease, load, releases, updates
from services.constitution_service.routes.anonymous_limits import AnonymousCallers
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
BACKGROUND = 4  # connections of what runs beside the requests: relay, process heartbeat, spool
_log = structlog.get_logger(__name__)


def create(settings: ServiceSettings) -> FastAPI:
    """Build the service.

    Raises:
        InvalidRequestError: a file or URL that the settings name cannot be used.
    """
    registry = new_registry()
    context, redis = make_context(settings, ServiceMetrics(registry))
    # No crowd of readers stands between the relay and its lease: connections are lent in order of asking.
    url = settings.database_url.get_secret_value()
    own = Database(url, application_name=f"constitution-service {os.getpid()} relay", connections=BACKGROUND)
    background = replace(context, database=own)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for database in (context.database, background.database):
                await database.open()
                stack.push_async_callback(database.close)
            stack.push_async_callback(redis.aclose)
            await context.generation_guard.start()
            for work in (
                context.generation_guard.run(),
                Relay(background, settings.kafka_client()).run(),
                process_heartbeat.beat(background),
                Drain(background).run(),
            ):
                stack.push_async_callback(end, asyncio.create_task(work))
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
    )
    app.state.config = context.config
    app.state.context = context
    app.state.anonymous_callers = AnonymousCallers()
    app.state.on_refused = Refusals(context).refused
    for part in (artifacts, lease, load, updates, current, releases, evidence, audit):
        app.include_router(part.router)
    return app
