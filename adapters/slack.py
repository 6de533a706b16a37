"""Slack's Web API, through slack-sdk. Without ``SLACK_API_URL`` it is Slack's own cloud.

Slack cannot be hosted by oneself, so the embedded stack runs an *emulator* of its API, kinder than the real one; what
Slack needs (``include_all_metadata``, channel membership) is sent all the same. The token wants the scopes
``chat:write channels:read channels:history`` (``groups:*`` for a private channel), and the bot must be a member.
Slack counts calls: nothing is asked twice, and nothing that nobody reads.

Messages are found again by their metadata ``{event_type: constitution_outcome, event_payload: {key}}``: a
``chat.postMessage`` whose answer was lost has happened or has not, and only a look-up can tell. For the same reason the
SDK's own retries are off: a retry after a connection error would post twice.
"""

import asyncio
import contextlib
import http.client
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.error import URLError

from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError, SlackClientError

from constitution.errors import ForbiddenError, InvalidRequestError, NotFoundError, UnavailableError

EVENT_TYPE = "constitution_outcome"
TIMEOUT = timedelta(seconds=5)  # of one call; look-up, post and permalink together stay below an attempt's 20 s
LOOK_BACK = timedelta(days=8)  # longer than the longest watch and hold together: an outcome is never older than its run
LONGEST_WAIT = timedelta(minutes=1)  # Slack's limits are by the minute: a longer Retry-After is somebody else's
PAGE = 200  # Slack recommends no more than 200 a page
MAX_PAGES = 50
IDS_FOR = timedelta(minutes=10)  # a channel may be renamed, and its name given to another: then that one is meant
THREADS = 10  # that are read for announcements; Slack counts calls

# Errors of the Web API by their remedy. Source: docs.slack.dev, chat.postMessage and conversations.history, Errors.
_TRANSIENT = frozenset(
    {"ratelimited", "rate_limited", "fatal_error", "internal_error", "request_timeout", "service_unavailable",
     "team_added_to_org", "message_limit_exceeded"}
)  # fmt: skip
_FORBIDDEN = frozenset(
    {"invalid_auth", "not_authed", "account_inactive", "token_revoked", "token_expired", "missing_scope",
     "no_permission", "org_login_required", "access_denied", "not_allowed_token_type", "restricted_action"}
)  # fmt: skip


_Thread = tuple[tuple[Any, Any], dict[str, str]]
"""The replies by its head when they were read, and our keys among them by ts."""


class SlackChannel:
    """Implements ``activities.ports.Channel``.

    Args:
        token: bot token (``xoxb-…``).
        api_url: of an emulator or proxy; None for Slack itself.
        ids_for: how long a channel's name means the same channel.
    """

    def __init__(self, token: str, api_url: str | None = None, ids_for: timedelta = IDS_FOR) -> None:
        options: dict[str, Any] = {"token": token, "timeout": int(TIMEOUT.total_seconds()), "retry_handlers": []}
        if api_url:
            options["base_url"] = api_url
        self._client = WebClient(**options)
        if api_url:
            self._client.proxy = None  # the SDK takes HTTPS_PROXY for every address, loopback too
        self._ids: dict[str, str] = {}
        self._ids_for = ids_for
        self._ids_until = 0.0  # of the monotonic clock
        self._threads: dict[str, _Thread] = {}  # the newest ones, by the ts of their head

    async def find(self, channel: str, key: str, head: str | None = None) -> tuple[tuple[str, str] | None, str | None]:
        """Return (channel id, ts) of the message that carries ``key``, and the ts of the one that carries ``head``.

        Looked through are the channel of the last ``LOOK_BACK`` and the thread under ``head``; other threads are not:
        a busy channel has hundreds, and Slack counts calls. Each is None if it is not there; once ``key`` is found
        the search ends, and ``head`` may not have been met.

        Raises:
            NotFoundError: no such channel. ForbiddenError: the token may not. UnavailableError: Slack cannot now.
        """
        return await asyncio.to_thread(self._find, channel, key, head)

    async def post(
        self, channel: str, *, key: str, text: str, blocks: list[dict[str, Any]], thread_ts: str | None = None
    ) -> tuple[str, str]:
        """Post a message that can be found by ``key``; a reply is also shown in the channel.

        Not idempotent: look first, under a lock. Returns (channel id, ts).

        Raises:
            NotFoundError, ForbiddenError, InvalidRequestError: refused, nothing was posted.
            UnavailableError: it may have been posted or not.
        """
        options: dict[str, Any] = {"thread_ts": thread_ts, "reply_broadcast": True} if thread_ts else {}
        posted = await asyncio.to_thread(
            self._call,
            lambda: self._client.chat_postMessage(
                channel=self._channel_id(channel),
                text=text,
                blocks=blocks,
                metadata={"event_type": EVENT_TYPE, "event_payload": {"key": key}},
                unfurl_links=False,
                unfurl_media=False,
                parse="none",
                link_names=False,
                **options,
            ),
        )
        return str(posted["channel"]), str(posted["ts"])

    async def edit(self, channel_id: str, ts: str, *, text: str, blocks: list[dict[str, Any]]) -> None:
        """Replace a message of ours; the same content again changes nothing.

        Raises:
            NotFoundError: there is no such message. Else as for ``post``.
        """
        await asyncio.to_thread(
            self._call,
            lambda: self._client.chat_update(channel=channel_id, ts=ts, text=text, blocks=blocks, parse="none"),
        )

    async def announced(self, channel: str, since: datetime) -> list[tuple[str, str, str]]:
        """Return (key, channel id, ts) of our messages in the channel, and in its newest threads that are ours.

        Raises:
            NotFoundError: no such channel. ForbiddenError: the token may not. UnavailableError: Slack cannot now.
        """
        return await asyncio.to_thread(self._announced, channel, since)

    async def delete(self, channel_id: str, ts: str) -> None:
        """Delete a message of ours.

        Raises:
            NotFoundError: there is no such message (any more). InvalidRequestError: not ours. Else as ``announced``.
        """
        self._threads = {}
        await asyncio.to_thread(self._call, lambda: self._client.chat_delete(channel=channel_id, ts=ts))

    async def permalink(self, channel_id: str, ts: str) -> str:
        """Return the address of a message."""
        answer = await asyncio.to_thread(
            self._call, lambda: self._client.chat_getPermalink(channel=channel_id, message_ts=ts)
        )
        return str(answer["permalink"])

    def _find(self, channel: str, key: str, head: str | None) -> tuple[tuple[str, str] | None, str | None]:
        channel_id = self._channel_id(channel)
        thread_ts: str | None = None
        for message in self._history(channel_id, datetime.now(UTC) - LOOK_BACK):
            if _key(message) == key:
                return (channel_id, str(message["ts"])), thread_ts
            if head is not None and thread_ts is None and _key(message) == head:
                thread_ts = str(message["ts"])
                for reply in self._replies(channel_id, thread_ts):
                    if _key(reply) == key:
                        return (channel_id, str(reply["ts"])), thread_ts
        return None, thread_ts

    def _announced(self, channel: str, since: datetime) -> list[tuple[str, str, str]]:
        channel_id = self._channel_id(channel)
        ours = [(message, key) for message in self._history(channel_id, since) if (key := _key(message)) is not None]
        found = {str(message["ts"]): key for message, key in ours}  # a reply that is shown in the channel too is one
        heads = [message for message, _ in ours if message.get("reply_count")]
        threads = {str(head["ts"]): self._thread(channel_id, head) for head in heads[:THREADS]}
        self._threads = threads
        for _, keys in threads.values():
            found |= keys
        return [(key, channel_id, ts) for ts, key in found.items()]

    def _thread(self, channel_id: str, head: dict[str, Any]) -> _Thread:
        """Return our keys in a thread by ts; it is read again only when its head tells of other replies."""
        ts, state = str(head["ts"]), (head.get("reply_count"), head.get("latest_reply"))
        known = self._threads.get(ts)
        if known is not None and known[0] == state:
            return known
        return state, {str(r["ts"]): key for r in self._replies(channel_id, ts) if (key := _key(r)) is not None}

    def _history(self, channel_id: str, since: datetime) -> Iterator[dict[str, Any]]:
        """Yield the channel's messages, newest first."""
        oldest = f"{since.timestamp():.6f}"
        return self._pages(
            lambda cursor: self._client.conversations_history(
                channel=channel_id, oldest=oldest, limit=PAGE, include_all_metadata=True, cursor=cursor
            ),
            "messages",
        )

    def _replies(self, channel_id: str, thread_ts: str) -> Iterator[dict[str, Any]]:
        return self._pages(
            lambda cursor: self._client.conversations_replies(
                channel=channel_id, ts=thread_ts, limit=PAGE, include_all_metadata=True, cursor=cursor
            ),
            "messages",
        )

    def _channel_id(self, channel: str) -> str:
        """Slack reads history by id only; a name is looked up anew every ``ids_for``, and when its id is refused."""
        name = channel.removeprefix("#")
        if not channel.startswith("#"):
            return channel
        if time.monotonic() >= self._ids_until:
            self._ids, self._ids_until = {}, time.monotonic() + self._ids_for.total_seconds()
        if name not in self._ids:
            self._ids |= self._listed("public_channel")
        if name not in self._ids:
            with contextlib.suppress(ForbiddenError):  # without groups:read; a token that asks for both sees neither
                self._ids |= self._listed("private_channel")
        if name not in self._ids:
            raise NotFoundError(
                f"Slack has no channel #{name} that this bot may see",
                hint="make the channel, invite the bot (/invite), or set `channel` in environment.toml",
            )
        return self._ids[name]

    def _listed(self, kind: str) -> dict[str, str]:
        """Return the channels' ids by name."""
        channels = self._pages(
            lambda cursor: self._client.conversations_list(
                limit=PAGE, exclude_archived=True, types=kind, cursor=cursor
            ),
            "channels",
        )
        return {str(channel.get("name")): str(channel["id"]) for channel in channels if channel.get("id")}

    def _pages(self, ask: Callable[[str | None], Any], field: str) -> Iterator[dict[str, Any]]:
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            asked = cursor  # bound now: the call runs inside _call
            page = self._call(lambda asked=asked: ask(asked))  # type: ignore[misc]
            yield from page.get(field) or []
            cursor = (page.get("response_metadata") or {}).get("next_cursor") or None
            if cursor is None:
                return

    def _call(self, request: Callable[[], Any]) -> Any:
        try:
            return request()
        except SlackApiError as error:
            refusal = translated(error)
            if isinstance(refusal, NotFoundError):  # archived, deleted, or a server that has lost its channels
                self._ids, self._threads = {}, {}
            raise refusal from error
        except (SlackClientError, URLError, OSError, http.client.HTTPException, ValueError) as error:
            raise UnavailableError(
                f"Slack did not answer: {type(error).__name__}: {error}",
                hint="SLACK_API_URL (unset: Slack's own cloud) says where it is looked for",
            ) from error


def _key(message: dict[str, Any]) -> str | None:
    metadata = message.get("metadata") or {}
    key = (metadata.get("event_payload") or {}).get("key")
    return key if metadata.get("event_type") == EVENT_TYPE and isinstance(key, str) else None


def translated(error: SlackApiError) -> Exception:
    """Return our error for a refusal of Slack's: by its code and status, and how long Slack asks to wait."""
    response: Any = error.response
    status = getattr(response, "status_code", 200)
    headers = {name.lower(): str(value) for name, value in (getattr(response, "headers", None) or {}).items()}
    data = response if isinstance(response, dict) else getattr(response, "data", None)
    code = str(data.get("error", "")) if isinstance(data, dict) else ""
    what = f"Slack refused the call: {code or f'HTTP {status}'}"
    spent = status == 403 and headers.get("x-ratelimit-remaining") == "0"  # the emulator's way to say 429
    if status == 429 or status >= 500 or code in _TRANSIENT or spent:
        unavailable = UnavailableError(what)
        wait = headers.get("retry-after", "")  # source: docs.slack.dev, Rate limits: 429 with Retry-After in seconds
        if wait.isascii() and wait.isdigit():
            unavailable.after_s = min(float(wait), LONGEST_WAIT.total_seconds())
        return unavailable
    if code in _FORBIDDEN or status in {401, 403}:
        return ForbiddenError(
            what, hint="check SLACK_BOT_TOKEN and its scopes: chat:write channels:read channels:history"
        )
    if code in {"channel_not_found", "not_in_channel", "is_archived", "message_not_found", "thread_not_found"}:
        return NotFoundError(what, hint="check `channel` in environment.toml, and invite the bot to it")
    return InvalidRequestError(what)
