"""``POST /v1/evaluate`` and ``/v1/evaluate/batch``: the engine's decisions over HTTP, recorded as a sample."""

from fastapi import APIRouter, Request, Response

from adapters.environment_config import EnvironmentConfig
from constitution.policy.consumer_api import PROBE_TENANT, BatchAnswer, BatchRequest, EvaluationAnswer
from constitution.policy.evaluation import EvaluationRequest
from constitution_follow.engine import Engine
from services.following.probe import require_probe
from services.policy_engine.recording import Recording
from services.policy_engine.shortcut import PATH

JSON = "application/json"


class Deciding:
    """Decides by the engine, and keeps a sample of what it was asked.

    Args:
        engine: decides and counts.
        recording: the sample.
        config: whose tokens allow the probe tenant.
    """

    def __init__(self, engine: Engine, recording: Recording, config: EnvironmentConfig) -> None:
        self._engine = engine
        self._recording = recording
        self._config = config

    def decide(self, request: EvaluationRequest) -> EvaluationAnswer:
        """Decide about one request.

        Raises:
            UnavailableError: nothing was read yet that could be obeyed.
        """
        answer = self._engine.evaluate(request)
        self._record(request)
        return answer

    def router(self) -> APIRouter:
        """Return the routes."""
        router = APIRouter(tags=["decisions"])

        @router.post(PATH, response_model=EvaluationAnswer)
        async def evaluate(body: EvaluationRequest, request: Request) -> Response:
            """Decide by the constitution in force. A denial is an answer, not an error."""
            await require_probe(request, self._config, tenant=body.tenant)
            return Response(self.decide(body).model_dump_json(), media_type=JSON)

        @router.post(f"{PATH}/batch", response_model=BatchAnswer)
        async def batch(body: BatchRequest, request: Request) -> Response:
            """Decide about several requests by one and the same release, in their order."""
            for tenant in {one.tenant for one in body.requests}:
                await require_probe(request, self._config, tenant=tenant)
            answers = self._engine.evaluate_all(body.requests)
            for one in body.requests:
                self._record(one)
            return Response(BatchAnswer.model_construct(answers=tuple(answers)).model_dump_json(), media_type=JSON)

        return router

    def _record(self, request: EvaluationRequest) -> None:
        if request.tenant != PROBE_TENANT:  # the runbook's own questions are no traffic
            self._recording.record(request)
