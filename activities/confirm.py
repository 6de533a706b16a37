"""Records standings (invariant 4): the one act after which nothing is undone by itself.

Anybody who reaches Temporal can forge results of activities (`temporal activity complete`). So no result
that a workflow got decides here: constitution-service looks up what assessors signed (its releasing/standing_rules.py),
and the activity that records the standing checks the delivery again.
"""

from temporalio import activity

from activities.failures import classified
from activities.keys import require_environment, step_key
from activities.ports import ActivityConfig, ConstitutionService
from activities.publish import ProveInput, Publish
from constitution.api import StandingRequest
from constitution.errors import NotYetError
from constitution.model import Model
from constitution.release import Envelope, Release, Standing, Verdict


class StandingInput(Model):
    """A standing to record, and where its evidence lies.

    Args:
        standing: ``confirmed``, or ``withdrawn``, which constitution-service makes ``poisoned`` by an attested anomaly.
        orders: signed orders to promote.
    """

    environment: str
    generation: int
    standing: Standing
    reason: str
    update_id: str
    fencing_token: int
    orders: tuple[Envelope, ...] = ()


class StandingResult(Model):
    """The release's latest standing, as recorded; ``verdict`` is what an assessor attested."""

    generation: int
    standing: Standing
    verdict: Verdict | None = None


class Confirm:
    """Records standings. ``publish`` looks again at what a confirmation rests on."""

    def __init__(self, *, service: ConstitutionService, config: ActivityConfig, publish: Publish) -> None:
        self._service = service
        self._config = config
        self._publish = publish

    @activity.defn
    @classified
    async def record_standing(self, x: StandingInput) -> StandingResult:
        """Append a standing; a confirmation only after its delivery was checked again.

        Twice, or killed half-way: the service appends the same standing once, and the key adds the run, because the
        run that follows a terminated one gives a reason of its own. Late, after its caller died: it needs the current
        token, so a fenced update can never confirm.

        Raises:
            LeaseLostError, ConflictError: the token is old, or the release is no longer current.
            EvidenceError: no assessor has signed that it is obeyed, and was watched as its board wished.
            NotYetError: it is not what is delivered.
        """
        require_environment(self._config, x.environment)
        release = await self._service.release(x.generation)
        if x.standing is Standing.CONFIRMED:
            if (recorded := _recorded_before(x, release)) is not None:
                return recorded
            if await self._newest() == x.generation:
                await self._prove(x, release)
        request = StandingRequest(
            standing=x.standing,
            reason=x.reason,
            update_id=x.update_id,
            fencing_token=x.fencing_token,
            orders=x.orders,
        )
        step = f"standing-{x.generation}-{x.standing.value}-{activity.info().workflow_run_id}"
        after = await self._service.record_standing(x.generation, request, step_key(x.environment, x.update_id, step))
        if after.standing is None:
            raise NotYetError(f"generation {x.generation} has no standing yet")
        return StandingResult(generation=after.generation, standing=after.standing, verdict=after.standings[-1].verdict)

    async def _newest(self) -> int:
        """Return the newest generation: the service refuses to confirm any other."""
        async for release in self._service.iter_releases():
            return release.generation
        return 0

    async def _prove(self, x: StandingInput, release: Release) -> None:
        """Read it back from every place that holds it: a proof may have been made up (invariant 1)."""
        await self._publish.prove_published(
            ProveInput(
                environment=x.environment,
                generation=release.generation,
                checksum=release.checksum,
                event_id=release.event_id,
                rings=release.rings,
                effective_at=release.effective_at,
            )
        )


def _recorded_before(x: StandingInput, release: Release) -> StandingResult | None:
    """Return what this update's confirmation was answered, if the answer was lost; also when it was undone since.

    It happened, also if the release was undone since, and it is not asked for a second time: by then evidence and
    targets may differ.
    """
    for record in release.standings:
        if record.standing is Standing.CONFIRMED and record.update_id == x.update_id:
            return StandingResult(generation=release.generation, standing=record.standing, verdict=record.verdict)
    return None
