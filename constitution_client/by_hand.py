"""The publish step without the workflow: lease, load, standing, lease back. The path for the day Temporal is down.

constitution-service checks signatures, approvals, evidence, lease and generation inside its transaction exactly as
it does for a worker, so no check is left out; the parts that the workflow adds are missing (sync, watch,
rollback by itself, broadcast, archive), and the output says so.
"""

import json as json_text
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from pydantic import BaseModel, ValidationError

from constitution.api import (
    Lease,
    LeaseRelease,
    LeaseRequest,
    LoadRequest,
    LoadResult,
    OrderRequest,
    StandingRequest,
    WorkflowRef,
)
from constitution.environment import issues_of
from constitution.errors import ConflictError, ConstitutionError, InvalidRequestError, UntrustedError
from constitution.messages import undo_command
from constitution.release import Envelope, Kind, Standing
from constitution.rollback_plan import step_of
from constitution_client.connections import service_client
from constitution_client.files import read_bytes
from constitution_client.ordering import Signer
from constitution_client.output import progress, result
from constitution_client.prompting import confirm
from constitution_client.render import when
from constitution_client.service import ConstitutionServiceClient
from constitution_client.settings import ClientSettings, UsageError, settings
from constitution_client.signing import SigningOptions

_M = TypeVar("_M", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class ByHand:
    """What an operator asked for; approvals are read and shaped before anything is sent."""

    reason: str
    checksum: str | None
    kind: Kind
    change_request: str | None
    approvals: tuple[Envelope, ...]
    evidence: str | None
    rollback_of: int | None
    confirm: bool
    orders: tuple[Envelope, ...]
    update_id: str
    key: Path | None = None  # an operator's, for an undo that the board has not decided anew

    @classmethod
    def read(
        cls,
        *,
        reason: str,
        checksum: str | None,
        kind: str,
        change_request: str | None,
        approvals: Sequence[Path],
        evidence: str | None,
        rollback_of: int | None,
        confirm: bool,
        orders: Sequence[Path],
        update_id: str | None,
        key: Path | None,
    ) -> "ByHand":
        """Read the command line.

        Raises:
            UsageError: ``kind`` is unknown, or a checksum is missing or superfluous.
            InvalidRequestError: an approval file holds no signed decision.
        """
        if kind not in set(Kind):
            raise UsageError(f"--kind {kind} is none of {', '.join(Kind)}")
        chosen = Kind(kind)
        if (checksum is None) is not (chosen is Kind.WITHDRAW):
            raise UsageError("--checksum says what goes live; only --kind withdraw goes without it")
        if update_id is None and chosen is Kind.UPDATE:
            raise UsageError("--update-id: the one that the approvals are for; approve takes it by the same name")
        if orders and not confirm:
            raise UsageError("--order goes with --confirm")
        return cls(
            reason=reason,
            checksum=checksum,
            kind=chosen,
            change_request=change_request,
            approvals=tuple(read_envelope(path) for path in approvals),
            evidence=evidence,
            rollback_of=rollback_of,
            confirm=confirm,
            orders=tuple(read_envelope(path) for path in orders),
            update_id=update_id or str(uuid4()),
            key=key,
        )


def read_envelope(path: Path) -> Envelope:
    """Read a signed decision: a DSSE envelope, or the ``{"approval": …}`` that ``approve --print`` writes.

    Raises:
        InvalidRequestError: it is neither.
    """
    try:
        data = json_text.loads(read_bytes(path, what="approval"))
        return Envelope.model_validate(data["approval"] if isinstance(data, dict) and "approval" in data else data)
    except ValidationError as error:
        raise InvalidRequestError(f"{path} is no signed decision", issues=issues_of(error)) from error
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(
            f"{path} is not JSON", hint="have a board member make one: approve with --print"
        ) from error


async def load_by_hand(order: ByHand, json: bool | None) -> None:
    """Load, and print what happened.

    Raises:
        LeaseHeldError: a run, or another operator, holds the lease; the message names it.
        ConstitutionError: refused by the service, with all issues.
    """
    configured = settings()
    async with service_client(configured, writes=True) as service:
        steps = _Steps(service, configured.environment_name(), order)
        await steps.order(configured)
        lease = await steps.lease()
        try:
            loaded = await steps.load(lease)
            if order.confirm:
                await steps.confirm(loaded, lease)
        finally:
            await steps.give_back(lease)
    after = (
        f"constitution show {loaded.generation}"
        if order.confirm
        else f"{undo_command(loaded.generation)}  # or, when every target was looked at, have the board order it by"
        f" the verb confirm, and repeat this load with --confirm --order FILE --update-id {order.update_id}"
    )
    result(
        {**loaded.model_dump(mode="json"), "update_id": order.update_id, "confirmed": order.confirm},
        [
            f"live         generation {loaded.generation}, version {loaded.version or 'none'}",
            f"checksum     {loaded.checksum or 'none'}",
            f"effective at {when(loaded.effective_at)}",
            f"event        {loaded.event_id}",
            f"standing     {'confirmed (not watched)' if order.confirm else 'UNCONFIRMED'}",
            "not done     sync, watch, broadcast, archive: this was the by-hand path",
            f"next: {after}",
        ],
        json,
    )


class _Steps:
    """The calls, each under its own idempotency key, so that a repeat with the same update id is harmless."""

    def __init__(self, service: ConstitutionServiceClient, environment: str, order: ByHand) -> None:
        self._service = service
        self._environment = environment
        self._order = order
        self._run = WorkflowRef(workflow_id=f"by-hand/{order.update_id}", run_id=order.update_id)

    def _key(self, step: str) -> str:
        return f"{self._environment}/{self._order.update_id}/{step}"

    async def order(self, configured: ClientSettings) -> None:
        """Have an operator's order accepted, where a key was given for one."""
        given = self._order
        if given.key is None or given.rollback_of is None or not given.kind.undoes or given.approvals:
            return
        step = step_of(given.rollback_of)
        envelope = Signer.read("rollback", SigningOptions(key=given.key), configured, None).order(
            "rollback",
            workflow_id=self._run.workflow_id,
            update_id=given.update_id,
            step=step,
            reason=given.reason,
        )
        await self._service.accept_order(
            OrderRequest(
                update_id=given.update_id,
                workflow=self._run,
                attempt=f"by-hand/{uuid4()}",
                order="rollback",
                step=step,
                envelope=envelope,
            )
        )

    async def lease(self) -> Lease:
        request = _checked(
            lambda: LeaseRequest(
                update_id=self._order.update_id,
                kind=self._order.kind,
                workflow_id=self._run.workflow_id,
                undoes=self._order.rollback_of,
                approvals=self._order.approvals if self._order.kind.undoes else (),
            )
        )
        progress(f"taking the lease of {self._environment} as update {self._order.update_id}")
        # A fresh key for each run of this command: an earlier lease under the same update id was given back.
        return await self._service.acquire_lease(request, self._key(f"lease-{uuid4()}"))

    async def load(self, lease: Lease) -> LoadResult:
        releases = await self._service.releases()
        mine = [release for release in releases if release.update_id == self._order.update_id]
        before = [release.generation for release in releases if release not in mine]
        environment_rings = settings().environment().rings()
        request = _checked(
            lambda: LoadRequest(
                update_id=self._order.update_id,
                kind=self._order.kind,
                checksum=self._order.checksum,
                rings=environment_rings,
                expected_generation=max(before, default=0),
                fencing_token=lease.fencing_token,
                change_request=self._order.change_request,
                approvals=self._order.approvals,
                test_evidence=self._order.evidence,
                rollback_of=self._order.rollback_of,
                reason=self._order.reason,
                workflow=self._run,
            )
        )
        progress(f"loading {self._order.checksum or 'a withdrawal'} after generation {max(before, default=0)}")
        return await self._service.load(request, self._key("load"))

    async def confirm(self, loaded: LoadResult, lease: Lease) -> None:
        if not (await self._service.release(loaded.generation)).delivery.delivered_at:
            raise ConflictError(
                f"generation {loaded.generation} is live, but Redis and Kafka have not got it yet: not confirmed",
                hint=f"constitution show {loaded.generation}  # then repeat with --update-id {self._order.update_id}",
            )
        await self._service.record_standing(
            loaded.generation,
            StandingRequest(
                standing=Standing.CONFIRMED,
                reason=self._order.reason,
                update_id=self._order.update_id,
                fencing_token=lease.fencing_token,
                orders=self._order.orders,
            ),
            self._key("confirm"),
        )

    async def give_back(self, lease: Lease) -> None:
        released = LeaseRelease(update_id=self._order.update_id, fencing_token=lease.fencing_token)
        try:
            await self._service.release_lease(released, self._key(f"release-{lease.fencing_token}"))
        except ConstitutionError as error:
            progress(f"warning: the lease was not given back ({error.message}); it ends by itself")


async def sign_confirmation(
    generation: int, signing: SigningOptions, reason: str | None, *, trust: Path | None, yes: bool, json: bool | None
) -> None:
    """Sign an order to confirm a release that nobody watched, and print it; or write its statement down.

    Raises:
        NotFoundError: there is no such generation.
        UntrustedError: the key belongs to no board member of the release's environment.
    """
    configured = settings()
    signer = Signer.read("confirm", signing, configured, trust)
    async with service_client(configured) as service:
        release = await service.release(generation)
    theirs = signer.policy.environment
    if release.environment != theirs:
        raise UntrustedError(f"the release is of {release.environment}, this trust policy of {theirs}")
    predicate = signer.predicate(
        "confirm",
        workflow_id=str(release.workflow.get("workflow_id") or ""),
        update_id=release.update_id,
        step=step_of(generation),
        reason=reason,
    )
    progress(signer.signing.begins)
    progress(f"  generation {generation}, {release.version or 'a withdrawal'}, {release.checksum or 'no document'},")
    progress(f"  is confirmed in {release.environment}, by nobody's watch: {predicate.reason}")
    if (question := signer.signing.asks("order")) is not None:
        confirm(question, yes=yes)
    envelope = signer.envelope(predicate, json)
    if envelope is not None:
        result(envelope.model_dump(mode="json"), [envelope.model_dump_json()], json)


def _checked(make: Callable[[], _M]) -> _M:
    try:
        return make()
    except ValidationError as error:
        raise UsageError("the command line does not make a request", issues=issues_of(error)) from error
