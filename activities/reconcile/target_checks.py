"""Reconciliation of the live releases: the targets, the topic, and the documents in force or next to be restored.

Postgres, Redis, Kafka's record of a release and the SIEM's position are compared by the very activities that proved the
release (``prove_published``, ``confirm_siem``); here is only what those do not look at.
"""

import asyncio
import shlex
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from temporalio import activity

from activities.failures import classified
from activities.fan_out import each
from activities.keys import require_environment
from activities.ports import ActivityConfig, ConstitutionService, TargetClient
from activities.reconcile.ports import Topic
from activities.reconcile.reconcile import Live
from constitution.checksum import Checksum
from constitution.environment import Target
from constitution.errors import ContentError, TransportError, UnavailableError, UntrustedError
from constitution.listing import NAMED, first_names, named
from constitution.model import Model
from constitution.policy import document as documents
from constitution.policy.lapse import days_warned
from constitution.reconciliation import DRIFT_WATCH, Finding
from signatures.released import signed_events

MOST_NAMED = 50  # findings of one kind; the others are counted, so that the history does not grow with the fleet


class Found(Model):
    """The findings of one look; ``drifting``: targets that left a release younger than ``DRIFT_WATCH``.

    ``unchecked``: what it did not look at, and why, in words.
    """

    findings: tuple[Finding, ...]
    drifting: int = 0
    unchecked: tuple[str, ...] = ()


class TargetsInput(Model):
    """The releases that targets should obey. ``refresh``: a target that does not must read anew before it is named."""

    environment: str
    live: tuple[Live, ...]
    refresh: bool


class TopicInput(Model):
    """The highest generation that Postgres knows, and since when."""

    environment: str
    highest: int
    since: datetime


class DocumentsInput(Model):
    """The live releases, and the checksum of the document that a rollback would restore."""

    environment: str
    live: tuple[Live, ...]
    fallback: Checksum | None


class TargetChecks:
    """Looks at targets, topic and artifact store; changes only what a target itself refreshes."""

    def __init__(
        self, *, service: ConstitutionService, targets: TargetClient, topic: Topic, config: ActivityConfig
    ) -> None:
        self._service = service
        self._targets = targets
        self._topic = topic
        self._config = config

    @activity.defn
    @classified
    async def check_targets(self, x: TargetsInput) -> Found:
        """Name every target that does not obey what is live in its ring, or does not answer.

        One whose ring has no release to compare with yet is asked all the same: a dead target is dead at any moment.
        Where a target source gives no list, or too short a one, that is a finding, and the targets that stand in
        environment.toml are asked all the same.
        Twice, killed half-way, or late: it only asks, and a refresh is safe at any moment.
        """
        require_environment(self._config, x.environment)
        wanted = {ring: live for live in x.live for ring in live.rings if live.settled}
        listed, blind = await self._listed()
        asked = [(target, wanted.get(target.ring)) for target in listed]

        async def look(one: tuple[Target, Live | None]) -> Finding | None:
            return await self._target(*one, refresh=x.refresh)

        answers = await each(asked, look)
        now = datetime.now(UTC)
        drifting = sum(
            finding is not None and live is not None and now - live.effective_at < DRIFT_WATCH
            for (_, live), finding in zip(asked, answers, strict=True)
        )
        idle = [target.id for target, live in asked if live is None]
        unsettled = named(first_names(idle), max(len(idle) - NAMED, 0))
        why = "nothing in their ring has been live and delivered for long enough to compare with"
        return Found(
            findings=(*blind, *_bounded(finding for finding in answers if finding is not None)),
            drifting=drifting,
            unchecked=(f"what {unsettled} obey: {why}",) if unsettled else (),
        )

    @activity.defn
    @classified
    async def check_topic(self, x: TopicInput) -> Found:
        """Find events on the topic about generations that Postgres does not know. Only reads.

        One whose statement verifies was live: Postgres was restored from an older backup. Any other one is an untrusted
        writer's, and no consumer has obeyed it.
        """
        require_environment(self._config, x.environment)
        newer = await self._topic.find_newer(x.highest, x.since)
        if not newer:
            return Found(findings=())
        signed = signed_events(newer, self._config.trust)
        newest = await asyncio.to_thread(next, signed, None)
        if newest is not None:
            _, _, release = newest
            message = f"generation {release.generation} is signed and on the topic, Postgres knows only {x.highest}"
            command = "python -m services.constitution_service.recovery releases  # docs/backup-and-restore.md"
        else:
            message = f"{len(newer)} forged events, the first at offset {newer[0]['offset']}; no consumer obeys them"
            command = "find out who may write to the topic"
        return Found(findings=(Finding(code="event-unknown", where="Kafka topic", message=message, command=command),))

    @activity.defn
    @classified
    async def check_documents(self, x: DocumentsInput) -> Found:
        """Prove that the documents in force, and the one to fall back to, are in the store, signed and not expiring.

        A read of the service repairs the store from the service's own copy. Twice, killed half-way, or late: reads.
        """
        require_environment(self._config, x.environment)
        findings: list[Finding] = []
        for live in x.live:
            if live.checksum is not None:
                findings += await self._document(live.checksum, live)
        if x.fallback is not None:
            findings += await self._document(x.fallback, None)
        return Found(findings=tuple(findings))

    async def _listed(self) -> tuple[tuple[Target, ...], tuple[Finding, ...]]:
        try:
            return (await self._config.fleet()).all, ()
        except UnavailableError as error:
            finding = Finding(
                code="cannot-look",
                where="target sources",
                message=error.message,
                command=error.hint or "look at what writes the list that target_sources in environment.toml names",
            )
            return self._config.environment.targets, (finding,)

    async def _target(self, target: Target, live: Live | None, *, refresh: bool) -> Finding | None:
        try:
            policy = await self._targets.policy(target, force=False)
        except (TransportError, ContentError) as error:
            return Finding(
                code="target-unreachable",
                where=target.id,
                message=error.message,
                command=f"make status  # then the log of {target.id}",
            )
        if live is None:
            return None
        if refresh and not _obeys(policy, live):
            # It answers; a failed refresh means that it is behind, not that it is gone.
            with suppress(TransportError, ContentError):
                policy = await self._targets.policy(target, force=True)
        if _obeys(policy, live):
            return None
        obeyed = f"generation {policy['generation']}, {policy['version'] or 'no constitution'}"
        return Finding(
            code="target-behind",
            where=target.id,
            message=f"it obeys {obeyed}, not generation {live.generation}, {live.version or 'no constitution'}",
            command=f"make restart NAME={shlex.quote(target.id)}  # its log says what it refuses, and why",
        )

    async def _document(self, checksum: Checksum, live: Live | None) -> list[Finding]:
        what = f"generation {live.generation}" if live else "what a rollback would restore"
        try:
            document = documents.parse(await self._service.artifact(checksum))
            if not await self._service.artifact_signatures(checksum):
                raise UntrustedError(f"{checksum} has no signatures in the store")
        except ContentError as error:
            return [
                Finding(
                    code="artifact-lost",
                    where=checksum,
                    message=f"{what}: {error.message}",
                    command="push the document and its signatures again: the legal archive has both",
                )
            ]
        days = days_warned(document.expires_at, datetime.now(UTC)) if live else None
        if days is None:
            return []
        when = document.expires_at.isoformat(timespec="seconds")
        return [
            Finding(
                code="document-expires",
                where=f"{what}, {f'{days} days before' if days else 'expired'}",
                message=f"version {document.version} {'expires' if days else 'expired'} at {when}; "
                f"{document.expiry_grace} s later, on_expiry: {document.on_expiry}",
                command="draft its successor, sign it, push it, and start an update",
            )
        ]


def _bounded(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the first findings of each kind, and one more of that kind for all the others."""
    kinds: dict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        kinds[finding.code].append(finding)
    return tuple(one for code, found in kinds.items() for one in (*found[:MOST_NAMED], *_others(code, found)))


def _others(code: str, found: list[Finding]) -> tuple[Finding, ...]:
    rest = found[MOST_NAMED:]
    if not rest:
        return ()
    return (
        Finding(
            code=code,
            where="other targets",
            message=f"{len(rest):,} more targets, the first of them {rest[0].where}: {rest[0].message}",
            command="make status  # so many have something in common: a network, a trust policy, an address list",
            stands_for=len(rest),
        ),
    )


def _obeys(policy: dict[str, Any], live: Live) -> bool:
    return (policy["generation"], policy["checksum"]) == (live.generation, live.checksum)
