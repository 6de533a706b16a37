"""The forwarder as a service: health and metrics over HTTP, forwarding beside them."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import structlog
from fastapi import FastAPI

from adapters.environment_config import load_environment_config
from adapters.kafka_consumer import KafkaConsumer
from constitution.api import ReadyReport
from constitution.names import Names
from constitution_follow.tasks import end
from constitution_follow.trust_watch import TrustMetrics, watch_trust
from services.common.app import create_app
from services.common.metrics import new_registry
from services.siem_forwarder.forwarder import Forwarder
from services.siem_forwarder.metrics import ForwarderMetrics
from services.siem_forwarder.settings import ForwarderSettings
from services.siem_forwarder.sinks.chosen import chosen_sink
from services.siem_forwarder.translate import Translator

GROUP = "siem"

_log = structlog.get_logger(__name__)


def create(settings: ForwarderSettings) -> FastAPI:
    """Build the app.

    Raises:
        InvalidRequestError: environment file or trust policy cannot be used.
    """
    config = load_environment_config(settings.environment_file)
    names = Names(settings.namespace)
    registry = new_registry()
    metrics = ForwarderMetrics(registry)
    TrustMetrics(config.holder, registry)
    translator = Translator(names, config)
    running: list[Forwarder] = []

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        consumer = KafkaConsumer(
            settings.kafka_client(),
            group=names.group(GROUP),
            topics=[names.topic_updated(), names.topic_audit()],
            start="earliest",
        )
        forwarder = Forwarder(consumer, translator, chosen_sink(settings), metrics)
        running.append(forwarder)
        task = asyncio.create_task(forwarder.run(), name="forward")
        task.add_done_callback(_end_with)
        watching = asyncio.create_task(watch_trust(config.holder), name="trust")
        yield
        await end(watching)
        with suppress(Exception):
            await end(task)
        running.clear()

    async def ready() -> ReadyReport:
        if not running:
            return ReadyReport(status="unavailable", checks={"forwarding": "not running"})
        return await running[0].ready()

    return create_app(title="siem-forwarder", ready=ready, lifespan=lifespan, registry=registry)


def _end_with(task: asyncio.Task[None]) -> None:
    """End the process when forwarding has ended by itself: a supervisor starts it again, and nothing is lost."""
    if not task.cancelled() and task.exception() is not None:
        _log.critical("forwarder_gives_up", error=str(task.exception()))
        os.kill(os.getpid(), signal.SIGTERM)
