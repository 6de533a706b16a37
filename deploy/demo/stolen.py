"""``make demo STOLEN=1``: what somebody can do who stole the runbook worker: its token key, and its way into Temporal.

Each act is really tried on the real stack; one that is not refused fails the demo.
"""

import asyncio
import json
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from constitution.api import EvidenceRecord, LeaseRelease, LeaseRequest, LoadRequest, StandingRequest, WorkflowRef
from constitution.checksum import checksum_of
from constitution.environment import Strategy
from constitution.errors import ConstitutionError
from constitution.policy import document as documents
from constitution.release import Envelope, Kind, Release, Standing, Verdict
from constitution.trust.approval import ApprovalPredicate, BoardDecision
from constitution.trust.attestation import GatePredicate, WatchPredicate
from constitution.trust.plan import Plan
from constitution_client.service import ConstitutionServiceClient
from deploy.demo.runs import StoryError
from deploy.demo.screen import Screen
from signatures.attestations import Attestation, sign_attestation
from signatures.statements import sign_approval
from signatures.tokens import ClientKey

INVENTED: Final = checksum_of(b"a result that nobody has seen")


class Thief:
    """Acts with what the worker holds, and nothing else.

    Args:
        screen: where each act and its refusal are shown.
        settings: the stack's settings: addresses.
        environment: the environment's name.
    """

    def __init__(self, screen: Screen, settings: dict[str, str], environment: str) -> None:
        self._screen = screen
        self._settings = settings
        self._environment = environment
        self._keys = Path(settings["KEYS_DIRECTORY"])
        self._key = ClientKey.load(self._keys / "worker.jwk")

    def load_untested(self, checksum: str, change_request: str) -> None:
        """Try to put a document live that no gate has tested; its board was deceived, and approves."""
        asyncio.run(self._load_untested(checksum, change_request))

    def confirm_unwatched(self, workflow_id: str) -> None:
        """Try to confirm the live release of a run before its watch has ended."""
        asyncio.run(self._confirm_unwatched(workflow_id))

    def _service(self) -> ConstitutionServiceClient:
        return ConstitutionServiceClient(self._settings["CONSTITUTION_SERVICE_URL"], self._key, self._environment)

    async def _load_untested(self, checksum: str, change_request: str) -> None:
        async with self._service() as service:
            draft = documents.parse(await service.artifact(checksum))
            live = (await service.releases())[0]
            update_id = str(uuid4())
            suite = {"tests": 900, "failures": 0, "errors": 0, "skipped": 0, "seconds": 60.0, "junit": INVENTED}
            record = EvidenceRecord(
                environment=self._environment,
                checksum=checksum,
                version=draft.version,
                previous=draft.previous.checksum if draft.previous else None,
                change_request=change_request,
                gate_digest=INVENTED,
                suites=tuple(
                    EvidenceRecord.Suite.model_validate({"name": name, "served": (checksum,), **suite})
                    for name in ("chaos", "policy")
                ),
                update_id=update_id,
            )
            digest = checksum_of(record.model_dump_json().encode())
            await self._refused("store invented evidence: 1,800 green cases", service.put_evidence(record))
            await self._refused(
                "sign as the assessor with the worker's key, and store that",
                service.put_attestation(self._forged(GatePredicate.of(record, digest))),
            )
            lease = await service.acquire_lease(
                LeaseRequest(update_id=update_id, kind=Kind.UPDATE, workflow_id="stolen"),
                f"{self._environment}/{update_id}/lease",
            )
            self._screen.say("  · the lease: taken, and given back below; it delays, and ends by itself")
            for what, evidence in (
                ("load it on invented evidence that two of the board have signed", digest),
                (f"load it on the evidence of {live.version}, which an assessor did sign", live.evidence or ""),
            ):
                request = LoadRequest(
                    update_id=update_id,
                    kind=Kind.UPDATE,
                    checksum=checksum,
                    rings=live.rings,
                    expected_generation=live.generation,
                    fencing_token=lease.fencing_token,
                    change_request=change_request,
                    approvals=self._deceived(draft, checksum, change_request, evidence, update_id, live),
                    test_evidence=evidence,
                    reason="stolen",
                    workflow=WorkflowRef(workflow_id="stolen", run_id="stolen"),
                )
                await self._refused(what, service.load(request, f"{self._environment}/{update_id}/load-{uuid4()}"))
            await service.release_lease(
                LeaseRelease(update_id=update_id, fencing_token=lease.fencing_token),
                f"{self._environment}/{update_id}/release",
            )
            current = (await service.releases())[0]
        if current.generation != live.generation:
            raise StoryError(f"a stolen worker published generation {current.generation}")

    async def _confirm_unwatched(self, workflow_id: str) -> None:
        client = await Client.connect(
            self._settings["TEMPORAL_ADDRESS"],
            namespace=self._settings.get("TEMPORAL_NAMESPACE") or "default",
            data_converter=pydantic_data_converter,
        )
        handle = client.get_workflow_handle(workflow_id)
        async with self._service() as service:
            live = (await service.releases())[0]
            token = await _fencing_token(client, workflow_id)
            self._screen.say(f"  · the fencing token {token}, read from the run's history in Temporal")
            report = _ok_report(live)
            await self._refused(
                "store an invented watch that saw nothing wrong", service.put_blob(json.dumps(report).encode())
            )
            await self._refused(
                "sign that watch as the assessor with the worker's key",
                service.put_attestation(self._forged(_invented_watch(live))),
            )
            request = StandingRequest(
                standing=Standing.CONFIRMED,
                reason="stolen",
                update_id=live.update_id,
                fencing_token=token,
            )
            key = f"{self._environment}/{live.update_id}/stolen-{uuid4()}"
            await self._refused(
                f"call generation {live.generation} confirmed", service.record_standing(live.generation, request, key)
            )
            pending = (await handle.describe()).raw_description.pending_activities
            watch = next(one for one in pending if one.activity_type.name == "watch_metric")
            run_id = (await handle.describe()).run_id
            said = client.get_async_activity_handle(
                workflow_id=workflow_id, run_id=run_id, activity_id=watch.activity_id
            )
            await said.complete(report)
            self._screen.say("  · the running watch, completed through Temporal with an invented ok: Temporal takes it")

    def _forged(self, predicate: Attestation) -> Envelope:
        return sign_attestation(predicate, "assessor", self._key.private_key)

    def _deceived(  # noqa: PLR0917 - private
        self,
        draft: documents.Constitution,
        checksum: str,
        change_request: str,
        evidence: str,
        update_id: str,
        live: Release,
    ) -> tuple[Envelope, ...]:
        """What two real board members sign who were shown an invented gate."""
        now = datetime.now(UTC)
        predicate = ApprovalPredicate(
            kind=Kind.UPDATE,
            environment=self._environment,
            checksum=checksum,
            version=draft.version,
            previous=draft.previous,
            change_request=change_request,
            evidence=evidence,
            plan=Plan(update_id=update_id, strategy="default", watch=Strategy(watch_seconds=0), rings=live.rings),
            decision=BoardDecision.APPROVE,
            reason="the gate is green",
            issued_at=now,
            expires_at=now + timedelta(hours=1),
        )
        return tuple(sign_approval(predicate, (self._keys / f"{name}.tsk").read_bytes()) for name in ("alva", "bruno"))

    async def _refused(self, what: str, act: Awaitable[object]) -> None:
        """Try something that must be refused, and show why it was.

        Raises:
            StoryError: it was done.
        """
        try:
            await act
        except ConstitutionError as error:
            why = "; ".join(dict.fromkeys([error.message, *(issue.message for issue in error.issues)]))
            self._screen.say(f"  ✗ tried to {what}", style="red")
            self._screen.say(f"    refused: {why}", style="green")
        else:
            raise StoryError(f"a stolen worker was let {what}")


def _invented_watch(live: Release) -> WatchPredicate:
    return WatchPredicate(
        environment=live.environment,
        generation=live.generation,
        update_id=live.update_id,
        strategy=Strategy(),
        test_evidence=live.evidence,
        published_at=live.effective_at,
        ends_at=live.effective_at + timedelta(hours=1),
        decided_at=live.effective_at + timedelta(hours=1),
        verdict=Verdict.OK,
        evidence=INVENTED,
    )


def _ok_report(live: Release) -> dict[str, Any]:
    """A report as the watch gives one, made up."""
    return {
        "verdict": "ok",
        "detail": "nothing was seen, says the thief",
        "decided_at": live.effective_at.isoformat(),
        "ratio": 1.0,
        "log_e": 0.0,
        "ci": [0.9, 1.1],
        "coverage": 1.0,
        "samples": 1000,
        "query": "up",
        "evidence": INVENTED,
        "leading": "evaluations",
        "limit": 4.6,
    }


async def _fencing_token(client: Client, workflow_id: str) -> int:
    events = (await client.get_workflow_handle(workflow_id).fetch_history()).events
    asked = {
        event.event_id
        for event in events
        if event.activity_task_scheduled_event_attributes.activity_type.name == "acquire_lease"
    }
    for event in reversed(events):
        done = event.activity_task_completed_event_attributes
        if done.scheduled_event_id in asked:
            return int(json.loads(done.result.payloads[0].data)["fencing_token"])
    raise StoryError(f"{workflow_id} has not taken the lease")
