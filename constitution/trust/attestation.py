"""Attestations: what the assessor signs about what it saw. In-toto Statements v1 in DSSE, as approvals are.

The gate's is a test result (github.com/in-toto/attestation, spec/predicates/test-result.md) with fields of ours beside
the specified ones, which that specification allows. Its subject is the document; that of a sync or watch is a release.
They say what was seen, not what follows: that is decided where the effect happens, in constitution-service.
"""

from collections.abc import Collection
from typing import Literal

from pydantic import AwareDatetime, Field

from constitution.api import EvidenceRecord
from constitution.checksum import Checksum
from constitution.environment import Identifier, Strategy, TargetSource
from constitution.listing import named
from constitution.model import Model, is_unsaid
from constitution.release import Release, UpdateId, Verdict
from constitution.trust.fleet import LISTED, Discovered, FleetReport, TargetReport, TargetSet
from constitution.trust.plan import Plan

GATE_PREDICATE = "https://in-toto.io/attestation/test-result/v0.1"
"""``predicateType`` of the regression gate's result."""

SYNC_PREDICATE = "urn:somaagenthub:constitution:sync:v1"
"""``predicateType`` of what every target of a release was seen to obey."""

WATCH_PREDICATE = "urn:somaagenthub:constitution:watch:v1"
"""``predicateType`` of a watch's verdict."""


class GatePredicate(Model):
    """What the regression gate found, and in which evidence it stands.

    Args:
        result: PASSED, or FAILED if any case did not pass.
        configuration: the gate's folder, by its digest.
        passedTests: the suites without a failure.
        failedTests: the others.
        evidence: digest of the whole record: the board's decisions name it.
    """

    class Resource(Model):
        """An in-toto resource descriptor."""

        name: str
        digest: dict[str, str]

    result: Literal["PASSED", "FAILED"]
    configuration: tuple[Resource, ...]
    passedTests: tuple[str, ...]  # noqa: N815 - the specification's name
    failedTests: tuple[str, ...]  # noqa: N815 - the specification's name
    environment: Identifier
    checksum: Checksum
    version: str
    previous: Checksum | None
    change_request: str
    update_id: UpdateId | None
    suites: tuple[EvidenceRecord.Suite, ...]
    evidence: Checksum

    @classmethod
    def of(cls, record: EvidenceRecord, evidence: Checksum) -> "GatePredicate":
        """Return what there is to say about a record of this digest."""
        passed = tuple(s.name for s in record.suites if s.tests and not (s.failures or s.errors or s.skipped))
        failed = tuple(s.name for s in record.suites if s.name not in passed)
        gate = cls.Resource(name="gate", digest={"sha256": record.gate_digest.removeprefix("sha256:")})
        return cls(
            result="FAILED" if failed else "PASSED",
            configuration=(gate,),
            passedTests=passed,
            failedTests=failed,
            environment=record.environment,
            checksum=record.checksum,
            version=record.version,
            previous=record.previous,
            change_request=record.change_request,
            update_id=record.update_id,
            suites=record.suites,
            evidence=evidence,
        )


class GoldenReport(Model):
    """How many golden requests each of these engines decided as the domain does; a mismatch is never attested.

    Of more than ``LISTED`` engines ``fleet`` says which; ``engines`` is empty then.
    """

    engines: tuple[Identifier, ...]
    vectors: int
    fleet: TargetSet | None = Field(default=None, exclude_if=is_unsaid)

    @classmethod
    def of(cls, engines: Collection[str], vectors: int) -> "GoldenReport":
        """Return the report of these engines."""
        if len(engines) <= LISTED:
            return cls(engines=tuple(engines), vectors=vectors)
        return cls(engines=(), vectors=vectors, fleet=TargetSet.of(engines))

    def unasked(self, engines: Collection[str]) -> str:
        """Say which of these engines were not asked; empty if all were."""
        if self.fleet is not None and self.vectors:
            wanted = TargetSet.of(engines)
            return "" if self.fleet == wanted else f"one or more of the {wanted.count:,} policy engines"
        asked = self.engines if self.vectors else ()
        return named(sorted(set(engines) - set(asked)))


class _OfRelease(Model):
    environment: Identifier
    generation: int
    update_id: UpdateId

    def differences(self, release: Release) -> tuple[str, ...]:
        """Say in what this is about another release; empty if it is about this one."""
        bound = (
            ("environment", self.environment, release.environment),
            ("generation", self.generation, release.generation),
            ("update id", self.update_id, release.update_id),
        )
        return tuple(f"its {name} is {found}, not {wanted}" for name, found, wanted in bound if found != wanted)


class SyncPredicate(_OfRelease):
    """What every target of a release's rings was seen to obey.

    Up to ``LISTED`` targets are listed. Of more, ``fleet`` says which were asked and how many obeyed, and ``targets``
    lists the first of those that did not.

    It has no time of its own, so that whoever has the same seen again makes no second attestation; its release's
    generation and update id say which publish it came after.
    """

    checksum: Checksum | None
    rings: tuple[Identifier, ...]
    targets: tuple[TargetReport, ...]
    golden: GoldenReport | None
    fleet: FleetReport | None = Field(default=None, exclude_if=is_unsaid)
    discovered: tuple[Discovered, ...] = Field(default=(), exclude_if=is_unsaid)

    def counts(self) -> tuple[int, int]:
        """Return how many targets obeyed, and how many were asked."""
        fleets = [found.fleet for found in self.discovered]
        if self.fleet is not None:
            fleets.append(self.fleet)
        obeyed, asked = sum(fleet.converged for fleet in fleets), sum(fleet.asked.count for fleet in fleets)
        if self.fleet is None:
            obeyed += sum(target.state == "converged" for target in self.targets)
            asked += len(self.targets)
        return obeyed, asked

    def listings(self) -> tuple[FleetReport, ...]:
        """Return the reports whose targets are listed in the artifact store alone."""
        own = () if self.fleet is None else (self.fleet,)
        return (*own, *(found.fleet for found in self.discovered))

    def problems(
        self,
        release: Release,
        targets: Collection[str],
        engines: Collection[str] = (),
        *,
        sources: Collection[TargetSource] = (),
        decides: bool = False,
    ) -> tuple[str, ...]:
        """Return every reason why this does not show that a release is obeyed.

        Args:
            release: which.
            targets: ids of all targets in its rings that environment.toml itself lists.
            engines: ids of those that must have been asked the golden requests.
            sources: of more targets in its rings.
            decides: whether the sources' engines must have been asked the golden requests, too.
        """
        found = list(self.differences(release))
        if (self.checksum, sorted(self.rings)) != (release.checksum, sorted(release.rings)):
            found.append("it is about another document, or other rings")
        if self.fleet is not None:
            found += self.fleet.problems(TargetSet.of(targets), undoes=release.kind.undoes)
        elif missing := sorted(set(targets) - {target.id for target in self.targets}):
            found.append(f"{named(missing)} was not asked")
        for target in self.targets:
            wrong = (target.generation, target.checksum) != (release.generation, release.checksum)
            if target.state == "converged" and wrong:
                found.append(f"{target.id} reported generation {target.generation}, {target.checksum}")
            # An undo is proved by everybody who answers; the silent are named, and catch up (invariant 4).
            elif target.state == "lagging" or (target.state == "unreachable" and not release.kind.undoes):
                found.append(f"{target.id} is {target.state}")
        if unasked := (self.golden or _NO_GOLDEN).unasked(engines):
            found.append(f"{unasked} was not asked the golden requests")
        reports = {report.source: report for report in self.discovered}
        for source in sources:
            if (report := reports.get(source.id)) is None:
                found.append(f"nobody of target source {source.id} was asked")
            else:
                found += report.problems(source, undoes=release.kind.undoes, decides=decides)
        return tuple(found)


_NO_GOLDEN = GoldenReport(engines=(), vectors=0)


class WatchPredicate(_OfRelease):
    """What one watch came to; ``strategy`` is its whole resolved content, ``evidence`` all that the verdict rests on.

    ``test_evidence`` names the gate's evidence, whose prediction was the expected change.
    """

    strategy: Strategy
    test_evidence: Checksum | None
    published_at: AwareDatetime
    ends_at: AwareDatetime
    decided_at: AwareDatetime
    verdict: Verdict
    evidence: Checksum

    def problems(self, release: Release, plan: Plan | None) -> tuple[str, ...]:
        """Return every reason why this is no watch of a release as its board signed it; null: nothing says how."""
        found = list(self.differences(release))
        if self.published_at != release.effective_at:
            found.append(f"its time of publish is {self.published_at}, not {release.effective_at}")
        if plan is not None and self.strategy != plan.watch:
            found.append("it was watched by another strategy than the board signed")
        if release.kind.undoes or (plan is not None and plan.watch.watch_seconds == 0):
            found.append("nobody has signed that this release is watched")
        if self.test_evidence != release.evidence:
            found.append("it was judged against another expected change than the board signed")
        return tuple(found)
