"""Composition root: settings in, app out. Clients are built here and closed in reverse."""

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import structlog
from fastapi import FastAPI

from adapters.artifact_store import ArtifactStore
from adapters.postgres import Database
from adapters.redis_cache import ConstitutionCache, connect
from constitution.api import ReadyReport
from constitution.names import Names
from services.common.app import create_app
from services.common.limits import BodyLimits
from services.common.metrics import new_registry
from services.common.site import load_site
from services.constitution_service import presence, ready
from services.constitution_service.audit_spool import Drain
from services.constitution_service.context import Context
from services.constitution_service.metrics import ServiceMetrics
from services.constitution_service.refusals import Refusals
from services.constitution_service.relay import Relay
from services.constitution_service.routes import artifacts, audit, current, evidence, lease, load, releases
from services.constitution_service.settings import ServiceSettings
from services.constitution_service.spool import Spool
from services.constitution_service.statement_key import load_statement_key
from services.constitution_service.strangers import Strangers

LIMITS = BodyLimits(
    by_path={
        "/v1/constitution/artifacts": 4 * 1024 * 1024,  # a document of 1 MiB and its signatures
        "/v1/constitution/validate": 4 * 1024 * 1024,
        "/v1/constitution/blobs": 32 * 1024 * 1024,  # JUnit files, samples of a long watch
        "/v1/constitution/audit": 64 * 1024,
    }
)
_log = structlog.get_logger(__name__)


def create(settings: ServiceSettings) -> FastAPI:
    """Build the service.

    Raises:
        InvalidRequestError: a file or URL that the settings name cannot be used.
    """
    site = load_site(settings.environment_file)
    names = Names(settings.namespace)
    registry = new_registry()
    redis = connect(settings.redis_url.get_secret_value())
    context = Context(
        site=site,
        names=names,
        database=Database(
            settings.database_url.get_secret_value(), application_name=f"constitution-service {os.getpid()}"
        ),
        cache=ConstitutionCache(redis, names),
        store=ArtifactStore(settings.artifact_store_url),
        key=load_statement_key(settings.statement_key_file, site.trust),
        spool=Spool(settings.spool_directory),
        metrics=ServiceMetrics(registry),
        process=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}",
    )

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await context.database.open()
            stack.push_async_callback(context.database.close)
            stack.push_async_callback(redis.aclose)
            for work in (
                Relay(context, settings.kafka_client()).run(),
                presence.keep_telling(context),
                Drain(context).run(),
            ):
                stack.push_async_callback(_end, asyncio.create_task(work))
            _log.info("started", environment=context.environment, process=context.process)
            yield

    async def is_ready() -> ReadyReport:
        return await ready.report(context)

    app = create_app(title="constitution-service", ready=is_ready, lifespan=lifespan, registry=registry, limits=LIMITS)
    app.state.site = site
    app.state.context = context
    app.state.strangers = Strangers()
    app.state.on_refused = Refusals(context).refused
    for part in (artifacts, lease, load, current, releases, evidence, audit):
        app.include_router(part.router)
    return app


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
