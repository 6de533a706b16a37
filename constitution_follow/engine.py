"""Decides about requests by what a replica obeys, counts each decision, and says by which document it was made."""

import time
from collections.abc import Iterable

from constitution.policy.consumer_api import EvaluationAnswer
from constitution.policy.evaluation import EvaluationRequest
from constitution.policy.lapse import Caution
from constitution_follow.decisions import DecisionMetrics
from constitution_follow.following import Following
from constitution_follow.view import View


class Engine:
    """The policy engine without HTTP.

    Args:
        following: keeps the replica up to date.
        caution: the action when the constitution in hand may no longer be the right one.
        metrics: of decisions.
    """

    def __init__(self, following: Following, *, caution: Caution, metrics: DecisionMetrics) -> None:
        self._following = following
        self._caution = caution
        self._metrics = metrics

    def evaluate(self, request: EvaluationRequest) -> EvaluationAnswer:
        """Decide by the constitution in force. A denial is an answer, not an error.

        Raises:
            UnavailableError: current has never been read.
        """
        return self._decided(self._following.replica.view(), request)

    def evaluate_all(self, requests: Iterable[EvaluationRequest]) -> list[EvaluationAnswer]:
        """Decide about several requests by one and the same release, in their order.

        Raises:
            UnavailableError: current has never been read.
        """
        view = self._following.replica.view()
        return [self._decided(view, request) for request in requests]

    def _decided(self, view: View, request: EvaluationRequest) -> EvaluationAnswer:
        began = time.perf_counter()
        decision = view.decide(request, self._caution)
        self._metrics.decided(decision, tenant=request.tenant, seconds=time.perf_counter() - began)
        return EvaluationAnswer.model_construct(  # of values that are valid already
            **dict(decision),
            policy_hash=view.obeyed.checksum,
            constitution_version=view.obeyed.version,
            generation=view.obeyed.generation,
        )
