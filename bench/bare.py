"""``python -m bench.bare PORT``: parses the body of ``POST /v1/evaluate`` and answers with a constant.

The lower bound of a policy engine: same framework, same server settings, same models, no rules, no metrics.
"""

import sys

import uvicorn
from fastapi import FastAPI, Response

from constitution.policy.consumer_api import EvaluationAnswer
from constitution.policy.evaluation import Decision, EvaluationRequest

ANSWER = EvaluationAnswer(
    decision=Decision.ALLOW, policy_hash="sha256:" + 64 * "0", constitution_version="1.0.0", generation=1
).model_dump_json()

app = FastAPI()


@app.post("/v1/evaluate", response_model=EvaluationAnswer)
async def evaluate(_body: EvaluationRequest) -> Response:
    """Answer with the same bytes, whatever was asked."""
    return Response(ANSWER, media_type="application/json")


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_config=None, access_log=False, server_header=False)
