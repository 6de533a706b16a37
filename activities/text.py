"""Makes untrusted text harmless where people read it: Slack blocks and Markdown.

Summaries, reasons, titles and names come from documents and from people who type messages. They must not call a whole
channel, link anywhere, look like a line or table cell of ours, or hide characters.
"""

import re
import unicodedata

_MARKDOWN = frozenset("\\`*_{}[]<>()#+!|~@&\"'$^=")
_WWW = re.compile(r"(www)\.", re.IGNORECASE)


def one_line(text: str, limit: int = 300) -> str:
    """Return the text on one line, without control, invisible and direction-changing characters.

    Args:
        text: hostile.
        limit: most characters of the result; a longer one ends in ``…``.
    """
    visible = "".join(" " if c.isspace() else c for c in text if c.isspace() or unicodedata.category(c)[0] != "C")
    line = " ".join(visible.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def slack_text(text: str, limit: int = 300) -> str:
    """Return text for a ``mrkdwn`` field with ``verbatim``: one line, and Slack's control characters escaped.

    Source: docs.slack.dev, Formatting message text: ``&``, ``<`` and ``>`` are the three that Slack itself reads.
    """
    return one_line(text, limit).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def markdown_text(text: str, limit: int = 300) -> str:
    """Return text for a Markdown paragraph or table cell: one line, with everything that Markdown reads as entities.

    ``://``, ``@`` and the dot of ``www.`` are among them: GitHub's Markdown links bare addresses. Other colons stay, so
    that a checksum can be searched for.
    """
    escaped = "".join(f"&#{ord(c)};" if c in _MARKDOWN else c for c in one_line(text, limit))
    return _WWW.sub(r"\1&#46;", escaped.replace("://", "&#58;//"))


def is_web_address(url: str) -> bool:
    """Say whether an address may become a link in a message: http(s), nothing that could end the link early."""
    return url.startswith(("http://", "https://")) and not any(c in "<>|\"'`" or c.isspace() for c in url)
