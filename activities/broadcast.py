"""Runbook step 5: the channel is told, once per outcome."""

from datetime import datetime

from pydantic import Field
from temporalio import activity

from activities.failures import classified
from activities.ports import Channel, Deployment, Ledger
from activities.subject import Subject
from constitution.checksum import Checksum
from constitution.model import Model


class ProgressInput(Model):
    """The progress message's content; ``ts`` and ``channel_id`` are null for the first call."""

    subject: Subject
    ts: str | None = None
    channel_id: str | None = None
    lines: tuple[str, ...]


class Posted(Model):
    """Where a message is."""

    channel_id: str
    ts: str
    permalink: str


class Announcement(Model):
    """One outcome to tell. ``key`` is unique per outcome: ``<update_id>/<outcome>``. Texts may be hostile."""

    key: str
    environment: str
    outcome: str  # completed | rejected | rolled_back | released | …
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
    restored_generation: int | None = None
    unreachable: tuple[str, ...] = ()
    diff: tuple[str, ...] = ()
    links: dict[str, str] = Field(default_factory=dict)
    thread_ts: str | None = None
    channel: str


class Broadcast:
    """Tells people in the channel."""

    def __init__(self, *, channel: Channel, ledger: Ledger, deployment: Deployment) -> None:
        self._channel = channel
        self._ledger = ledger
        self._deployment = deployment

    @activity.defn
    @classified
    async def post_progress(self, x: ProgressInput) -> Posted: ...
    @activity.defn
    @classified
    async def announce(self, x: Announcement) -> Posted: ...
