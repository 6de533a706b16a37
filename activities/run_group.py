"""The releases of one update id: of an update and of the rollbacks that undid it."""

from temporalio import activity

from activities.failures import classified
from activities.ports import ConstitutionService
from activities.runs import RunRef
from constitution.model import Model
from constitution.release import Kind, Standing


class RunGroupInput(Model):
    """Whose releases."""

    update_id: str


class RunGroupRelease(Model):
    """One release, and the run that made it (null if it was loaded by hand)."""

    generation: int
    version: str | None
    kind: Kind
    rollback_of: int | None
    standing: Standing | None
    run: RunRef | None


class RunGroupReleases(Model):
    """All releases of an update id, oldest first."""

    releases: tuple[RunGroupRelease, ...]


class RunGroup:
    """Looks at the releases of a run group; changes nothing."""

    def __init__(self, *, service: ConstitutionService) -> None:
        self._service = service

    @activity.defn
    @classified
    async def releases_of(self, x: RunGroupInput) -> RunGroupReleases:
        """Return the releases of an update id. Twice, killed half-way, or late: only reads."""
        mine = [release async for release in self._service.iter_releases() if release.update_id == x.update_id]
        return RunGroupReleases(
            releases=tuple(
                RunGroupRelease(
                    generation=release.generation,
                    version=release.version,
                    kind=release.kind,
                    rollback_of=release.rollback_of,
                    standing=release.standing,
                    run=RunRef.model_validate(release.workflow) if release.workflow.get("run_id") else None,
                )
                for release in sorted(mine, key=lambda release: release.generation)
            )
        )
