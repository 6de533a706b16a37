"""The policy engine's HTTP: evaluate, refresh, what is obeyed, what a candidate would change."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, Request, Response

from adapters.environment_config import load_environment_config
from constitution.policy.consumer_api import PROBE_TENANT, EvaluationAnswer, PolicyStatus
from constitution.policy.evaluation import EvaluationRequest
from constitution.watch.prediction import PredictAnswer, PredictRequest
from services.common.app import create_app
from services.common.auth import require_scope
from services.common.limits import BodyLimits
from services.common.metrics import new_registry
from services.common.outgoing import http_client
from services.following.following import Following
from services.following.probe import SCOPE, log_refusal, require_probe
from services.following.refresh import refreshed
from services.policy_engine.candidate import Candidates
from services.policy_engine.metrics import DecisionMetrics
from services.policy_engine.recording import Recording
from services.policy_engine.settings import PolicyEngineSettings
from services.policy_engine.shift import Shift

MAX_BODY_BYTES = 256 * 1024  # the longest prompt, escaped for JSON, and all other fields


def create(settings: PolicyEngineSettings) -> FastAPI:
    """Build the app.

    Raises:
        InvalidRequestError: environment file or trust policy cannot be used.
    """
    config = load_environment_config(settings.environment_file)
    registry = new_registry()
    following = Following(settings, config, registry, prefix="policy_engine")
    metrics = DecisionMetrics(registry, tenants=config.environment.tenants, target=settings.target_id)
    caution = settings.caution()
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

    app = create_app(
        title="policy-engine",
        ready=following.ready,
        lifespan=lifespan,
        registry=registry,
        limits=BodyLimits(default=MAX_BODY_BYTES),
    )
    app.state.config = config
    app.state.on_refused = log_refusal

    @app.post("/v1/evaluate", response_model=EvaluationAnswer)
    async def evaluate(body: EvaluationRequest, request: Request) -> Response:
        """Decide by the constitution in force. A denial is an answer, not an error."""
        await require_probe(request, config, tenant=body.tenant)
        view = following.follower.view()
        started = time.perf_counter()
        decision = view.decide(body, caution)
        metrics.decided(decision, tenant=body.tenant, seconds=time.perf_counter() - started)
        if body.tenant != PROBE_TENANT:  # the runbook's own questions are no traffic
            recording.record(body)
        answer = EvaluationAnswer(
            **dict(decision),
            policy_hash=view.obeyed.checksum,
            constitution_version=view.obeyed.version,
            generation=view.obeyed.generation,
        )
        return Response(answer.model_dump_json(), media_type="application/json")

    @app.post("/v1/policy/refresh")
    async def refresh(_client: Annotated[str, Depends(require_scope("policy:refresh"))]) -> PolicyStatus:
        """Read and verify the current constitution now; answers with what is then obeyed."""
        return await refreshed(following.follower)

    @app.post("/v1/policy/predict")
    async def predict(
        body: PredictRequest, request: Request, client: Annotated[str, Depends(require_scope(SCOPE))]
    ) -> PredictAnswer:
        """What a signed candidate would decide otherwise about the recorded requests: counts, never a request."""
        shift: Shift = request.app.state.shift
        return await shift.predict(body, following.follower.view(), client)

    @app.get("/v1/policy")
    async def policy() -> PolicyStatus:
        """What this replica obeys."""
        return following.follower.status()

    return app
