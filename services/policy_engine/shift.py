"""``POST /v1/policy/predict``: replays the recorded requests through a candidate, and tells counts."""

import asyncio

import structlog

from constitution.errors import ConflictError
from constitution.policy.rules import Policy
from constitution.watch.prediction import PredictAnswer, PredictRequest, ReplayCounts, replay
from constitution_follow.view import View
from services.policy_engine.candidate import Candidates
from services.policy_engine.recording import Recording, Sample

MOST = 2000  # requests of one replay: a share is known to two points, and a core is taken for a second
_log = structlog.get_logger(__name__)


class Shift:
    """Answers one question at a time: a replay takes a core for some tenths of a second.

    Args:
        target: id of this replica.
    """

    def __init__(self, recording: Recording, candidates: Candidates, *, target: str) -> None:
        self._recording = recording
        self._candidates = candidates
        self._target = target
        self._turn = asyncio.Lock()

    async def predict(self, asked: PredictRequest, view: View, client: str) -> PredictAnswer:
        """Return what the candidate would decide otherwise, in counts.

        Args:
            asked: the candidate's checksum.
            view: what is obeyed now.
            client: who asks, for the log.

        Raises:
            ConflictError: no constitution is in force: there is nothing to compare with.
            NotFoundError, UntrustedError, InvalidDocumentError, UnavailableError: as ``Candidates.compiled``.
        """
        current = view.obeyed.policy
        if current is None or view.obeyed.checksum is None:
            raise ConflictError("no constitution is in force: there is nothing to compare the candidate with")
        async with self._turn:
            candidate = await self._candidates.compiled(asked.checksum)
            counts = await asyncio.to_thread(_counted, self._recording.sample(MOST), current, candidate)
        _log.info(
            "shift_predicted",
            audit=True,
            client=client,
            target=self._target,
            current=view.obeyed.checksum,
            candidate=asked.checksum,
            requests=counts.requests,
        )
        return PredictAnswer(target=self._target, current=view.obeyed.checksum, candidate=asked.checksum, counts=counts)


def _counted(sample: Sample, current: Policy, candidate: Policy) -> ReplayCounts:
    """Replay in a thread; it closes the sample itself, because its caller may be gone before."""
    try:
        return replay(sample.requests(), current=current, candidate=candidate, span_s=sample.span_s)
    finally:
        sample.close()
