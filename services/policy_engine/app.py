"""The policy engine's HTTP: evaluate, refresh, what is obeyed, what a candidate would change."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated

from fastapi import Depends, FastAPI, Request

from adapters.environment_config import load_environment_config
from constitution.policy.consumer_api import PolicyStatus
from constitution.watch.prediction import PredictAnswer, PredictRequest
from constitution_follow.decisions import DecisionMetrics
from constitution_follow.engine import Engine
from constitution_follow.following import Following
from constitution_follow.outgoing import http_client
from services.common.app import create_app
from services.common.auth import require_scope
from services.common.limits import BodyLimits
from services.common.metrics import new_registry
from services.following.probe import SCOPE, log_refusal
from services.following.refresh import refreshed
from services.policy_engine.candidate import Candidates
from services.policy_engine.deciding import Deciding
from services.policy_engine.recording import Recording
from services.policy_engine.settings import PolicyEngineSettings
from services.policy_engine.shift import Shift
from services.policy_engine.shortcut import Shortcut

MAX_BODY_BYTES = 256 * 1024  # the longest prompt, escaped for JSON, and all other fields


def create(settings: PolicyEngineSettings) -> FastAPI:
    """Build the app.

    Raises:
        InvalidRequestError: environment file or trust policy cannot be used.
    """
    config = load_environment_config(settings.environment_file)
    registry = new_registry()
    following = Following(settings.source(config), registry, prefix="policy_engine", hints=settings.hints())
    metrics = DecisionMetrics(registry, tenants=config.environment.tenants, target=settings.target_id)
    engine = Engine(following, caution=settings.caution(), metrics=metrics)
    recording = Recording(
        directory=settings.recording_directory,
        requests=settings.recording_requests,
        room=settings.recording_megabytes * 1024 * 1024,
        window_s=settings.recording_hours * 3600,
        registry=registry,
        target=settings.target_id,
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with (
            following.running(),
            http_client() as client,
        ):
            candidates = Candidates(client, base_url=settings.constitution_service_url, config=config)
            app.state.shift = Shift(recording, candidates, target=settings.target_id)
            try:
                yield
            finally:
                recording.close()

    deciding = Deciding(engine, recording, config)
    app = create_app(
        title="policy-engine",
        ready=following.ready,
        lifespan=lifespan,
        registry=registry,
        limits=BodyLimits(default=MAX_BODY_BYTES),
        shortcut=partial(Shortcut, decide=deciding.decide),
    )
    app.state.config = config
    app.state.on_refused = log_refusal
    app.include_router(deciding.router())

    @app.post("/v1/policy/refresh")
    async def refresh(_client: Annotated[str, Depends(require_scope("policy:refresh"))]) -> PolicyStatus:
        """Read and verify the current constitution now; answers with what is then obeyed."""
        return await refreshed(following.replica)

    @app.post("/v1/policy/predict")
    async def predict(
        body: PredictRequest, request: Request, client: Annotated[str, Depends(require_scope(SCOPE))]
    ) -> PredictAnswer:
        """What a signed candidate would decide otherwise about the recorded requests: counts, never a request."""
        shift: Shift = request.app.state.shift
        return await shift.predict(body, following.replica.view(), client)

    @app.get("/v1/policy")
    async def policy() -> PolicyStatus:
        """What this replica obeys."""
        return following.replica.status()

    return app
