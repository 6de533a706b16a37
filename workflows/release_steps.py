"""The steps that an update and a rollback take alike: guard, proof, sync, and giving the lease back."""

from collections.abc import Sequence

from temporalio import workflow

from workflows import child_runs, policies
from workflows.child_runs import GuardRequest
from workflows.guard_supervisor import GuardSupervisor
from workflows.status import Journal
from workflows.stepping import Stepper

with workflow.unsafe.imports_passed_through():
    from activities.deployment import DeploymentInfo
    from activities.publish import Proof, ProveInput, Publish, Published, ReleaseLeaseInput
    from activities.sync import Sync, SyncInput, SyncReport


class ReleaseSteps:
    """Steps of one run.

    Args:
        stepper: runs them.
        journal: where they become visible; it knows the environment and the update id.
    """

    def __init__(self, stepper: Stepper, journal: Journal) -> None:
        self._stepper = stepper
        self._journal = journal
        self._supervisor: GuardSupervisor | None = None

    @property
    def is_guarded(self) -> bool:
        """Whether this run has started its guard."""
        return self._supervisor is not None

    async def guard(self, info: DeploymentInfo, *, archives_histories: bool) -> None:
        """Start the guard, and keep one for as long as the run lives; before anything that needs an undo."""
        request = GuardRequest(
            parent=child_runs.myself(),
            update_id=self._update_id,
            environment=info.environment,
            namespace=info.namespace,
            archives_histories=archives_histories,
        )
        self._supervisor = GuardSupervisor(info.namespace)
        await self._supervisor.start(request)

    async def prove(self, published: Published, rings: Sequence[str], *, persistent: bool) -> Proof:
        """Read the release back from every place that holds it (invariant 1)."""
        proof = await self._stepper.run(
            "publish",
            Publish.prove_published,
            ProveInput(
                environment=self._environment,
                generation=published.generation,
                checksum=published.checksum,
                event_id=published.event_id,
                rings=tuple(rings),
                effective_at=published.effective_at,
            ),
            policies.PROVE,
            summary=f"read generation {published.generation} back from Postgres, Redis and Kafka",
            persistent=persistent,
        )
        where = f"partition {proof.partition}, offset {proof.offset}"
        self._journal.step("publish", "done", detail=f"generation {published.generation}, {where}")
        return proof

    async def sync(
        self,
        generation: int,
        *,
        seconds: int,
        summary: str,
        undoes: bool,
    ) -> SyncReport:
        """Ask the targets until they obey. An update takes all of them; an undo takes those that answer."""
        return await self._stepper.run(
            "sync",
            Sync.sync_targets,
            SyncInput(environment=self._environment, generation=generation),
            policies.sync(seconds),
            summary=summary,
            persistent=undoes,
        )

    async def release_lease(self, token: int) -> None:
        """Give the lease back (invariant 6); a token that is not current any more changes nothing."""
        await self._stepper.run(
            "lease",
            Publish.release_lease,
            ReleaseLeaseInput(environment=self._environment, update_id=self._update_id, fencing_token=token),
            policies.WRITE,
            summary="give the lease back",
            persistent=True,
        )

    @property
    def _environment(self) -> str:
        return self._journal.status.environment or ""

    @property
    def _update_id(self) -> str:
        return self._journal.status.update_id or workflow.info().run_id
