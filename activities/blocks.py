"""Slack Block Kit for progress and outcomes. Every text that is not ours is hostile (activities/text.py). Pure.

Limits are Slack's: header 150 characters, section text 3000, 10 fields of 2000, 50 blocks. Source: docs.slack.dev,
Block Kit reference. Hostile text goes into ``plain_text`` (no formatting, no mentions) or, in fields, into ``mrkdwn``
with ``verbatim`` (no links made of addresses) after escaping.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from activities.text import is_web_address, one_line, slack_text

Block = dict[str, Any]

TITLES = {
    "completed": "went live and was confirmed",
    "rejected": "rejected: nothing live was touched",
    "rolled_back": "rolled back",
}
_DIFF_LINES = 20


def header(text: str) -> Block:
    """Return a header block."""
    return {"type": "header", "text": {"type": "plain_text", "text": one_line(text, 150), "emoji": False}}


def paragraph(lines: list[str]) -> Block | None:
    """Return lines as plain text, or None if there are none."""
    text = "\n".join(line for line in lines if line)
    if not text:
        return None
    text = text if len(text) <= 3000 else text[:2999] + "…"
    return {"type": "section", "text": {"type": "plain_text", "text": text, "emoji": False}}


def facts(pairs: list[tuple[str, str]]) -> Block | None:
    """Return names (ours) and values (hostile) as fields; empty values are left out."""
    fields = [
        {"type": "mrkdwn", "verbatim": True, "text": f"*{name}*\n{slack_text(value, 500)}"}
        for name, value in pairs
        if value
    ][:10]
    return {"type": "section", "fields": fields} if fields else None


def addresses(links: Mapping[str, str]) -> Block | None:
    """Return links by name; an address that could break out of its link is left out."""
    shown = [
        f"<{url.replace('&', '&amp;')}|{slack_text(name, 60)}>"
        for name, url in sorted(links.items())
        if is_web_address(url)
    ]
    if not shown:
        return None
    return {"type": "context", "elements": [{"type": "mrkdwn", "text": " · ".join(shown), "verbatim": True}]}


def present(blocks: list[Block | None]) -> list[Block]:
    """Return the blocks that are there."""
    return [block for block in blocks if block is not None][:50]


def diff_lines(diff: tuple[str, ...]) -> list[str]:
    """Return the first lines of a diff, and how many more there are."""
    lines = [f"• {one_line(line, 140)}" for line in diff[:_DIFF_LINES]]
    if len(diff) > _DIFF_LINES:
        lines.append(f"… and {len(diff) - _DIFF_LINES} more")
    return lines


def when(moment: datetime | None) -> str:
    """Return a moment for people: UTC, to the second."""
    return "" if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
