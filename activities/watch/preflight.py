"""Whether a watch that began now could end in a verdict: it is rehearsed on the baseline's traffic. Pure."""

from datetime import datetime, timedelta

from activities.watch.live import Matrices
from constitution.environment import Strategy
from constitution.errors import InvalidRequestError
from constitution.model import Model
from constitution.release import Verdict
from constitution.watch.counters import InvalidSeriesError, parse_matrix
from constitution.watch.power import describe_power
from constitution.watch.spike import Reading, SpikeTest, power
from constitution.watch.watching_family import FamilyWatch

STALE = timedelta(seconds=15)  # a newest sample older than this (or three scrapes) means that nobody scrapes
REHEARSAL_STEPS = 60  # looks of the rehearsed watch, evenly spaced


class Preflight(Model):
    """Whether a watch could judge a release published now; ``verdict`` says why not."""

    ready: bool
    verdict: Verdict | None
    detail: str
    power: str


def rehearse(family: FamilyWatch) -> Preflight:
    """Rehearse each quantity; the first required one that could not end as ``ok`` speaks."""
    several = len(family.watches) > 1
    powers = []
    lack: tuple[Verdict | None, str] | None = None
    detail = ""
    for name, one in family.watches.items():
        test, prefix = one.test, f"{name}: " if several else ""
        end = _end_of(test)
        sentence = describe_power(power(test.baseline, test.parameters), test.parameters.bake_s)
        powers.append(prefix + sentence)
        detail = detail or end.reason
        if end.verdict is not Verdict.OK and family.watched[name].required and lack is None:
            lack = (end.verdict, prefix + end.reason)
    if lack is None:
        return Preflight(ready=True, verdict=None, detail=detail, power="; ".join(powers))
    return Preflight(ready=False, verdict=lack[0], detail=lack[1], power="; ".join(powers))


def _end_of(test: SpikeTest) -> Reading:
    """End a copy of the test after a watch in which the baseline's traffic goes on unchanged."""
    copy = SpikeTest.start(test.baseline, test.parameters)
    seconds = test.parameters.bake_s / REHEARSAL_STEPS
    exposure = seconds * test.baseline.exposure_per_second
    for _ in range(REHEARSAL_STEPS):
        copy.observe(test.baseline.rate * exposure, exposure, seconds)
    return copy.finish()


def lack_of_samples(matrices: Matrices, now: datetime, strategy: Strategy) -> str | None:
    """Say which metric has no sample, or no fresh one; None: all have.

    Raises:
        InvalidRequestError: Prometheus answered with no matrix.
    """
    for metric, matrix in matrices.items():
        try:
            newest = max((samples[-1][0] for _, samples in parse_matrix(matrix) if samples), default=None)
        except InvalidSeriesError as error:
            raise InvalidRequestError(f"Prometheus answered with something that is no matrix: {error}") from error
        if newest is None:
            return f"the metric is missing: Prometheus has no sample of {metric}; is the policy engine scraped?"
        age = now.timestamp() - newest
        if age > max(3 * strategy.scrape_seconds, STALE.total_seconds()):
            return f"the metric is stale: the newest sample of {metric} is {age:.0f} s old"
    return None
