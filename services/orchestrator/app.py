"""The orchestrator's HTTP: start a session, what is obeyed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request

from adapters.environment_config import load_environment_config
from constitution.errors import UnavailableError
from constitution.policy.consumer_api import PolicyStatus, SessionAnswer, SessionRequest
from constitution_follow.following import Following
from constitution_follow.outgoing import http_client
from services.common.app import create_app
from services.common.limits import BodyLimits
from services.common.metrics import new_registry
from services.following.probe import log_refusal, require_probe
from services.orchestrator.engines import Engines
from services.orchestrator.sessions import Sessions, session_counter
from services.orchestrator.settings import OrchestratorSettings
from signatures.tokens import ClientKey

MAX_BODY_BYTES = 256 * 1024  # the longest prompt, escaped for JSON, and all other fields


def create(settings: OrchestratorSettings) -> FastAPI:
    """Build the app.

    Raises:
        InvalidRequestError: environment file, trust policy or client key cannot be used.
    """
    config = load_environment_config(settings.environment_file)
    key = ClientKey.load(settings.client_key_file)
    registry = new_registry()
    following = Following(settings.source(config), registry, prefix="orchestrator", hints=settings.hints())
    counter = session_counter(registry)
    running: list[Sessions] = []

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        http = http_client()
        async with following.running() as follower, http as client:
            engines = Engines(client, urls=settings.engine_urls(), key=key, environment=config.name)
            running.append(
                Sessions(
                    follower,
                    engines,
                    caution=settings.caution(),
                    backoff_s=settings.poll_seconds,
                    tenants=frozenset(config.environment.tenants),
                    started=counter,
                )
            )
            yield
            running.clear()

    app = create_app(
        title="orchestrator",
        ready=following.ready,
        lifespan=lifespan,
        registry=registry,
        limits=BodyLimits(default=MAX_BODY_BYTES),
    )
    app.state.config = config
    app.state.on_refused = log_refusal

    @app.post("/v1/sessions/start")
    async def start(body: SessionRequest, request: Request) -> SessionAnswer:
        """Start a session, or refuse it. A refusal is an answer, not an error."""
        debug = body.deployment_mode == "production-debug"
        await require_probe(request, config, tenant=body.tenant, own_time=body.time is not None, refreshes=debug)
        if not running:
            raise UnavailableError("the orchestrator is not running")
        return await running[0].start(body, authorization=request.headers.get("authorization"))

    @app.get("/v1/policy")
    async def policy() -> PolicyStatus:
        """What this replica obeys."""
        return following.replica.status()

    return app
