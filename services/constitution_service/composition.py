"""Builds the context of the service from its settings. Connects to nothing yet."""

import os
import secrets
import socket
from datetime import timedelta

from adapters.artifact_store import ArtifactStore
from adapters.environment_config import load_environment_config
from adapters.postgres import Database
from adapters.redis_cache import ConstitutionCache
from adapters.redis_client import Client, connect
from constitution.names import Names
from services.constitution_service.context import Context
from services.constitution_service.generations.guard import GenerationGuard
from services.constitution_service.generations.sources import KAFKA_WAIT, ReleaseSources
from services.constitution_service.metrics import ServiceMetrics
from services.constitution_service.serving.memory import Memory
from services.constitution_service.settings import ServiceSettings
from services.constitution_service.spool import Spool
from services.constitution_service.statement_key import load_statement_key

READERS = 10  # connections of those who ask


def make_database(settings: ServiceSettings, application_name: str, *, connections: int) -> Database:
    """Return a pool of connections as the service's role."""
    return Database(
        settings.database_url.get_secret_value(),
        application_name=application_name,
        connections=connections,
        password_file=settings.database_password_file,
    )


def make_context(
    settings: ServiceSettings, metrics: ServiceMetrics, *, kafka_wait: timedelta = KAFKA_WAIT
) -> tuple[Context, Client]:
    """Return the context, and the Redis client, which its owner closes; the database is opened by its owner.

    Raises:
        InvalidRequestError: a file or URL that the settings name cannot be used.
    """
    config = load_environment_config(settings.environment_file)
    names = Names(settings.namespace)
    redis = connect(settings.redis_url.get_secret_value())
    database = make_database(settings, f"constitution-service {os.getpid()}", connections=READERS)
    cache = ConstitutionCache(redis, names)
    store = ArtifactStore(settings.artifact_store_url)
    sources = ReleaseSources(
        config=config, names=names, cache=cache, store=store, kafka=settings.kafka_client(), kafka_wait=kafka_wait
    )
    guard = GenerationGuard(environment=config.name, database=database, sources=sources)
    context = Context(
        config=config,
        names=names,
        database=database,
        cache=cache,
        store=store,
        key=load_statement_key(settings.statement_key_file, config.trust),
        spool=Spool(settings.spool_directory),
        metrics=metrics,
        process=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}",
        sources=sources,
        generation_guard=guard,
        memory=Memory(
            config=config,
            guard=guard,
            max_staleness=timedelta(seconds=settings.max_staleness_seconds),
        ),
        lease_ttl=timedelta(seconds=settings.lease_seconds),
    )
    return context, redis
