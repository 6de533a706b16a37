"""Runbook step 5: announces each outcome in the channel, once (invariant 7)."""

import asyncio
import contextlib
from datetime import datetime
from typing import Annotated

from pydantic import Field
from temporalio import activity

from activities import blocks
from activities.ending import ended
from activities.failures import classified
from activities.folder import require_backed
from activities.keys import require_environment
from activities.past_releases import undoing
from activities.ports import ActivityConfig, Channel, ConstitutionService, Ledger
from activities.text import one_line, slack_text
from activities.update_plan import UpdatePlan
from constitution.api import UpdateRecord, UpdateState
from constitution.archived_outcome import record_of
from constitution.checksum import Checksum
from constitution.errors import ConflictError, NotFoundError, UnavailableError
from constitution.listing import named
from constitution.messages import Outcome
from constitution.model import Model
from constitution.policy.document import parse
from constitution.release import Release


class ProgressInput(Model):
    """The progress message's content; ``ts`` and ``channel_id`` are null for the first call."""

    update: UpdatePlan
    ts: str | None = None
    channel_id: str | None = None
    lines: tuple[str, ...]


class Posted(Model):
    """Where a message is. ``permalink`` is an outcome's; a progress message needs none."""

    channel_id: str
    ts: str
    permalink: str = ""


class Announcement(Model):
    """One outcome to announce. ``key`` is unique per outcome: ``<update_id>/<outcome>``. Texts may be hostile.

    For a ``generation`` the facts of constitution-service's record replace those given here, the key with them.
    """

    key: str
    environment: str
    outcome: Outcome
    version: str | None = None
    checksum: Checksum | None = None
    generation: int | None = None
    effective_at: datetime | None = None
    summary: str = ""
    reason: str = ""
    approvers: tuple[str, ...] = ()
    change_request: str | None = None
    workflow_id: str
    run_id: str
    restored_version: str | None = None
    restored_checksum: Checksum | None = None
    restored_generation: int | None = None
    unreachable: tuple[str, ...] = ()
    more_unreachable: Annotated[int, Field(ge=0)] = 0
    diff: tuple[str, ...] = ()
    update_id: str  # its progress message is what an outcome replies to
    answers: str = ""  # update id whose progress message it replies to instead: of the release that was undone


class Broadcast:
    """Posts to the channel."""

    def __init__(
        self, *, channel: Channel, ledger: Ledger, service: ConstitutionService, config: ActivityConfig
    ) -> None:
        self._service = service
        self._channel = channel
        self._ledger = ledger
        self._config = config

    @activity.defn
    @classified
    async def post_progress(self, x: ProgressInput) -> Posted:
        """Post the run's progress message, or edit it when ``ts`` is given.

        Twice, or killed half-way: the first post is found again by its metadata (``<update_id>/progress``), under a
        lock; an edit with the same content changes nothing. Late, after its caller died: an edit may show an old state
        until the next one; the outcome is a message of its own.

        Raises:
            UnavailableError: Slack does not answer. NotFoundError, ForbiddenError: channel, message or token is wrong.
        """
        update = x.update
        require_environment(self._config, update.environment)
        title = f"Constitution {update.version} for {update.environment}"
        shown = blocks.present(
            [
                blocks.header(title),
                blocks.facts([("Change request", update.change_request), ("Checksum", update.checksum)]),
                blocks.paragraph([one_line(line, 300) for line in x.lines]),
                blocks.addresses(self._config.links),
            ]
        )
        text = slack_text(f"{title}: {x.lines[-1] if x.lines else 'started'}")
        if x.ts is not None and x.channel_id is not None:
            with contextlib.suppress(NotFoundError):  # deleted, or the channel is another one by now: posted anew
                await self._channel.edit(x.channel_id, x.ts, text=text, blocks=shown)
                return Posted(channel_id=x.channel_id, ts=x.ts)
        channel_id, ts = await self._once(
            self._config.environment.channel, _progress_key(update.update_id), text, shown
        )
        return Posted(channel_id=channel_id, ts=ts)

    @activity.defn
    @classified
    async def announce(self, x: Announcement) -> Posted:
        """Announce one outcome: a message of its own; a reply to the progress message is shown in the channel too.

        The standing of a release is announced as constitution-service has recorded it; an update's rejection ends that
        update there first. Links and channel are the environment's.
        Once per key: under an advisory lock, an earlier post is looked up by its metadata first, so that a call whose
        answer was lost, a retry, or a second worker finds it. Twice, or killed half-way: the same message. Late, after
        its caller died: the announcement is true all the same.

        Raises:
            UnavailableError, NotYetError: Slack, the lock or the service does not answer now; it may have been posted.
            ConflictError: the record says otherwise.
            NotFoundError, ForbiddenError: channel or token is wrong.
        """
        require_environment(self._config, x.environment)
        x = await self._recorded(x)
        title = f"Constitution {x.version or ''} {blocks.TITLES[x.outcome]}".replace("  ", " ")
        restored = ""
        if x.restored_generation is not None:
            restored = f"{x.restored_version or 'no constitution'} as generation {x.restored_generation}"
            restored += f"\n{x.restored_checksum}" if x.restored_checksum else ""
        shown = blocks.present(
            [
                blocks.header(f"{title} ({x.environment})"),
                blocks.facts(
                    [
                        ("Version", x.version or ""),
                        ("Generation", "" if x.generation is None else str(x.generation)),
                        ("Checksum", x.checksum or ""),
                        ("Effective", blocks.when(x.effective_at)),
                        ("Restored", restored),
                        ("Approvers", ", ".join(x.approvers)),
                        ("Change request", x.change_request or ""),
                        ("Unreachable", named(x.unreachable, x.more_unreachable)),
                    ]
                ),
                blocks.paragraph([one_line(x.summary, 1000)]),
                blocks.paragraph([f"Reason: {one_line(x.reason, 1000)}" if x.reason else ""]),
                blocks.paragraph(blocks.diff_lines(x.diff)),
                blocks.facts([("Workflow", x.workflow_id), ("Run", x.run_id)]),
                blocks.addresses(self._config.links),
            ]
        )
        text = slack_text(f"{title} in {x.environment}: {x.checksum or ''} {x.reason or x.summary}", 600)
        channel_id, ts = await self._once(
            self._config.environment.channel, x.key, text, shown, _progress_key(x.answers or x.update_id)
        )
        return Posted(channel_id=channel_id, ts=ts, permalink=await self._channel.permalink(channel_id, ts))

    async def _recorded(self, x: Announcement) -> Announcement:
        """Return the announcement, with every fact that the service has recorded taken from its record."""
        if x.generation is None:
            return await self._rejected(x)
        release = await self._service.release(x.generation)
        require_backed(release, x.outcome)
        record = record_of(release, x.outcome)
        undo = await undoing(self._service, x.generation) if x.outcome == Outcome.ROLLED_BACK else None
        summary = ""
        if release.checksum is not None:
            document = await self._service.artifact(release.checksum)
            summary = (await asyncio.to_thread(parse, document)).summary
        return x.model_copy(
            update={
                "key": _key(release, x.outcome),
                "answers": release.update_id,
                **await self._named(x),
                **{name: str((undo or release).workflow.get(name, "")) for name in ("workflow_id", "run_id")},
                "version": release.version,
                "checksum": release.checksum,
                "effective_at": (undo or release).effective_at,
                "summary": summary,
                "reason": record.reason if record else release.reason,
                "approvers": (undo or release).approvers,
                "change_request": release.change_request,
                "restored_version": undo and undo.version,
                "restored_checksum": undo and undo.checksum,
                "restored_generation": undo and undo.generation,
                "diff": (),
            }
        )

    async def _named(self, x: Announcement) -> dict[str, object]:
        """Return the targets that may be named; an announcement waits for no list, and counts whom it cannot know."""
        known = {target.id for target in self._config.environment.targets}
        others = x.more_unreachable
        try:
            known |= {target.id for target in (await self._config.fleet()).all}
        except UnavailableError:
            others += sum(target not in known for target in x.unreachable)
        return {"unreachable": tuple(one for one in x.unreachable if one in known), "more_unreachable": others}

    async def _rejected(self, x: Announcement) -> Announcement:
        """Return the announcement of a refusal, the only one without a generation; an update's ends that update."""
        if x.outcome != Outcome.REJECTED:
            raise ConflictError(f"what was {x.outcome} has a generation; none is named")
        if x.key != f"{x.update_id}/{Outcome.REJECTED}":
            return x  # a rollback's: its update is another
        record: UpdateRecord | None = None
        with contextlib.suppress(UnavailableError):  # the run's audit event ends it too; the announcement does not wait
            record = await ended(self._service, x.update_id, x.reason)
        if record is None:
            return x
        if record.state in {UpdateState.LOADED, UpdateState.CONFIRMED}:
            raise ConflictError(f"update {x.update_id} is live: it was not rejected")
        return x.model_copy(update={"change_request": record.change_request})

    async def _once(
        self, channel: str, key: str, text: str, shown: list[blocks.Block], head: str | None = None
    ) -> tuple[str, str]:
        async def look_or_post() -> tuple[str, str]:
            found, thread_ts = await self._channel.find(channel, key, head)
            if found is not None:
                return found
            return await self._channel.post(channel, key=key, text=text, blocks=shown, thread_ts=thread_ts)

        posted: tuple[str, str] = await self._ledger.locked(f"broadcast/{key}", look_or_post)
        return posted


def _key(release: Release, outcome: Outcome) -> str:
    """Return the name under which an outcome of a release is announced, once, whoever asks for it (invariant 7)."""
    if outcome == Outcome.ROLLED_BACK:
        return f"{release.environment}/{release.generation}/{outcome}"
    return f"{release.update_id}/{outcome}"


def _progress_key(update_id: str) -> str:
    return f"{update_id}/progress"
