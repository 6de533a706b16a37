"""Starts a session, or refuses it: asks the policy engine, and answers only what engine and orchestrator agree on.

The orchestrator follows the constitution itself: the ``policy_hash`` of its answer is one that it has verified. An
engine on an older release is told to refresh; one on a newer release makes the orchestrator refresh. Where the two
still differ, or no engine answers, the session is refused: default deny.
"""

import uuid
from contextlib import suppress
from datetime import UTC, datetime

import structlog
from prometheus_client import CollectorRegistry, Counter

from constitution.errors import ConstitutionError
from constitution.policy.consumer_api import PROBE_TENANT, SessionAnswer, SessionReason, SessionRequest
from constitution.policy.evaluation import Decision, EvaluationRequest, PolicyDecision
from constitution.policy.lapse import Caution
from constitution_follow.replica import Replica
from constitution_follow.view import View
from services.following.refresh import refreshed
from services.orchestrator.engines import Asked, Engines, EngineUnreachableError

_log = structlog.get_logger(__name__)


class Sessions:
    """Starts sessions.

    Args:
        caution: the action when the constitution in hand may no longer be the right one.
        backoff_s: seconds after a failed read during which a request does not ask constitution-service again.
        tenants: of the environment; others count as ``other``.
    """

    def __init__(
        self,
        follower: Replica,
        engines: Engines,
        *,
        caution: Caution,
        backoff_s: float,
        tenants: frozenset[str],
        started: Counter,
    ) -> None:
        self._follower = follower
        self._engines = engines
        self._caution = caution
        self._backoff_s = backoff_s
        self._tenants = tenants | {PROBE_TENANT}
        self._started = started

    async def start(self, request: SessionRequest, *, authorization: str | None) -> SessionAnswer:
        """Decide about a session.

        Raises:
            UnavailableError: current was never read; or ``production-debug`` was asked for and the current constitution
                could not be read and verified now.
        """
        debug = request.deployment_mode == "production-debug"
        if debug:
            await refreshed(self._follower)
        elif self._follower.behind() or not self._follower.failed_within(self._backoff_s):
            with suppress(ConstitutionError):  # reported by the follower; the last good one stays
                await self._follower.revalidate()
        answer = await self._decide(request, authorization=authorization, refresh=debug)
        tenant = request.tenant if request.tenant in self._tenants else "other"
        self._started.labels(answer.decision, answer.reason, tenant).inc()
        _log.info(
            "session_started" if answer.session_id else "session_refused",
            session=answer.session_id,
            ticket=answer.ticket,
            tenant=tenant,
            decision=answer.decision,
            rule=answer.rule,
            reason=answer.reason,
            policy_hash=answer.policy_hash,
            generation=answer.generation,
        )
        return answer

    async def _decide(self, request: SessionRequest, *, authorization: str | None, refresh: bool) -> SessionAnswer:
        question = EvaluationRequest(
            **request.model_dump(exclude={"time", "deployment_mode"}), time=request.time or datetime.now(UTC)
        )
        denial = self._follower.view().denial(self._caution)
        if denial is not None and not refresh:
            return _answer(self._follower.view(), denial, denial.reason)
        try:
            asked = await self._engines.ask(question, authorization=authorization, refresh=refresh)
            view = self._follower.view()
            if not _agree(asked, view):
                asked, view = await self._reconciled(asked, view, question, authorization)
        except EngineUnreachableError as error:
            _log.warning("engine_unreachable", detail=error.message)
            view = self._follower.view()
            denial = view.denial(self._caution)
            if denial is None:
                return _refusal(view, "engine_unreachable", "No policy engine could be asked.")
            return _answer(view, denial, denial.reason)
        denial = view.denial(self._caution)
        if denial is not None:
            return _answer(view, denial, denial.reason)
        if not _agree(asked, view):
            _log.warning(
                "engine_disagrees",
                engine=asked.url,
                engine_generation=asked.answer.generation,
                generation=view.obeyed.generation,
            )
            return _refusal(view, "engine_disagrees", "The policy engine obeys another constitution than we do.")
        decision = view.over(asked.answer, self._caution)  # the engine may still be in contact, or be less strict
        return _answer(view, decision, decision.reason)

    async def _reconciled(
        self, asked: Asked, view: View, question: EvaluationRequest, authorization: str | None
    ) -> tuple[Asked, View]:
        """Bring the one that is behind up to date, ask once more, and return what came of it."""
        if asked.answer.generation > view.obeyed.generation:
            with suppress(ConstitutionError):  # reported by the follower
                await self._follower.refresh()
        behind = asked.answer.generation < self._follower.view().obeyed.generation
        asked = await self._engines.ask(question, authorization=authorization, refresh=behind, only=asked.url)
        return asked, self._follower.view()


def session_counter(registry: CollectorRegistry) -> Counter:
    """Return the counter of decisions about sessions."""
    return Counter(
        "orchestrator_sessions_total", "Decisions about sessions.", ["decision", "reason", "tenant"], registry=registry
    )


def _agree(asked: Asked, view: View) -> bool:
    mine = (view.obeyed.generation, view.obeyed.checksum, view.obeyed.version)
    return mine == (asked.answer.generation, asked.answer.policy_hash, asked.answer.constitution_version)


def _refusal(view: View, reason: SessionReason, message: str) -> SessionAnswer:
    return _answer(view, PolicyDecision(decision=Decision.DENY, severity="critical", message=message), reason)


def _answer(view: View, decision: PolicyDecision, reason: SessionReason) -> SessionAnswer:
    return SessionAnswer(
        session_id=str(uuid.uuid4()) if decision.decision is Decision.ALLOW else None,
        decision=decision.decision,
        rule=decision.rule,
        severity=decision.severity,
        message=decision.message,
        reason=reason,
        ticket=f"T-{uuid.uuid4()}" if decision.decision is Decision.REQUIRE_APPROVAL else None,
        policy_hash=view.obeyed.checksum,
        constitution_version=view.obeyed.version,
        generation=view.obeyed.generation,
    )
