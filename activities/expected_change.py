"""Preconditions, the expected change: what the candidate would decide otherwise about the last day's requests.

Every policy engine replays its own recorded requests and tells counts (services/policy_engine/shift.py); here they are
summed, judged (constitution/watch/prediction.py) and written into the evidence: the board sees the prediction and signs
its digest, and the watch tests against it.
"""

from temporalio import activity

from activities.attesting import Attester
from activities.failures import classified
from activities.fan_out import each
from activities.keys import require_environment
from activities.ports import ActivityConfig, ConstitutionService, TargetClient
from constitution.api import EvidenceRecord
from constitution.checksum import Checksum
from constitution.environment import Target
from constitution.errors import ConstitutionError, EvidenceError, UntrustedError
from constitution.model import Model
from constitution.trust.attestation import GatePredicate
from constitution.watch.prediction import PredictAnswer, ReplayCounts, predict
from signatures.attestations import verify_attestation


class PredictInput(Model):
    """The evidence that the regression gate left: it says of which document."""

    environment: str
    evidence: Checksum


class PredictResult(Model):
    """The evidence with the prediction in it (the board's decisions name this one), and the prediction in words."""

    evidence: Checksum
    lines: tuple[str, ...]


class ExpectedChange:
    """Asks engines; stores evidence; changes nothing live."""

    def __init__(
        self, *, service: ConstitutionService, targets: TargetClient, config: ActivityConfig, assessor: Attester
    ) -> None:
        self._assessor = assessor
        self._service = service
        self._targets = targets
        self._config = config

    @activity.defn
    @classified
    async def predict_shift(self, x: PredictInput) -> PredictResult:
        """Have every engine replay its recorded requests, and put the prediction into the evidence.

        An engine that does not answer, or obeys another document than the one to be replaced, is named and left out:
        fewer requests, a wider interval, in the end none. So no prediction ever stops an update.
        Twice, or killed half-way: other requests may have been recorded by then, which gives other evidence; the
        board's decisions name the one that the workflow recorded. Late: evidence more that nobody names.

        Raises:
            NotFoundError: there is no such evidence.
            EvidenceError: no assessor has signed it.
            UnavailableError: constitution-service does not answer.
        """
        require_environment(self._config, x.environment)
        record = await self._service.evidence(x.evidence)
        if record.previous is None:
            return PredictResult(evidence=x.evidence, lines=("a first release changes nothing that could be replayed",))
        await self._require_attested(record, x.evidence)
        engines = [target for target in (await self._config.fleet()).all if target.kind == "policy_engine"]
        asked = await each(engines, lambda engine: self._ask(engine, record.checksum))
        counts: dict[str, ReplayCounts] = {}
        silent: list[str] = []
        for engine, answer in zip(engines, asked, strict=True):
            if isinstance(answer, str):
                silent.append(f"{engine.id}: {answer}")
            elif answer.current != record.previous:
                silent.append(f"{engine.id}: it obeys {answer.current}, not what is to be replaced")
            else:
                counts[engine.id] = answer.counts
        try:
            prediction = predict(counts, silent=silent)
        except ValueError as error:  # an engine with impossible counts is left out
            prediction = predict({}, silent=(*silent, f"all: {error}"))
        told = record.model_copy(update={"prediction": prediction.model_dump(mode="json")})
        evidence = await self._service.put_evidence(told)
        await self._assessor.attest(GatePredicate.of(told, evidence))
        return PredictResult(evidence=evidence, lines=tuple(prediction.lines()))

    async def _require_attested(self, record: EvidenceRecord, evidence: Checksum) -> None:
        """Sign on only what an assessor has signed: whoever calls could have made the record up."""
        said = GatePredicate.of(record, evidence)
        for envelope in await self._service.attestations(evidence=evidence):
            try:
                if verify_attestation(envelope, self._config.trust) == said:
                    return
            except UntrustedError as error:
                activity.logger.info("attestation_does_not_count", extra={"reason": error.message})
        raise EvidenceError(f"no assessor has signed that it saw the evidence {evidence}")

    async def _ask(self, engine: Target, checksum: str) -> PredictAnswer | str:
        try:
            return await self._targets.predict(engine, checksum)
        except ConstitutionError as error:
            return error.message
