"""Makes a constitution of a template, or of another constitution: fills in what belongs to one release."""

import json
from datetime import UTC, datetime
from typing import Any

from constitution import strict_json
from constitution.errors import InvalidDocumentError
from constitution.policy.document import parse
from constitution.release import Previous
from constitution.templates import template as shipped

_FIELDS = (
    "schema_version",
    "environment",
    "version",
    "title",
    "summary",
    "issued_at",
    "effective_at",
    "expires_at",
    "on_expiry",
    "expiry_grace",
    "on_stale",
    "previous",
    "principles",
    "rules",
    "default_effect",
)
"""The order in which people read a document."""


def fill(
    template: bytes | str,
    *,
    version: str,
    environment: str,
    issued_at: datetime,
    expires_at: datetime,
    previous: Previous | None,
    effective_at: datetime | None = None,
    title: str | None = None,
    summary: str | None = None,
) -> bytes:
    """Return the exact bytes of a valid constitution, ready to be signed.

    Args:
        template: a shipped template's name, a template's bytes, or another constitution's.
        version: ``x.y.z``.
        environment: the one deployment that it is for.
        issued_at: when it is written; aware.
        expires_at: when it must have been replaced; aware.
        previous: what is live; None for a first release.
        effective_at: not before this; None for at once. Never taken from the template.
        title: None keeps the template's.
        summary: None keeps the template's.

    Raises:
        NotFoundError: no template of that name.
        InvalidDocumentError: the template, or what became of it, is no constitution.
    """
    try:
        content = strict_json.read(shipped(template) if isinstance(template, str) else template)
    except strict_json.StrictJsonError as error:
        raise InvalidDocumentError("the template cannot be read", issues=[error.issue]) from error
    if not isinstance(content, dict):
        raise InvalidDocumentError("the template is no JSON object")
    filled: dict[str, Any] = {
        **content,
        "environment": environment,
        "version": version,
        "issued_at": _instant(issued_at),
        "expires_at": _instant(expires_at),
        "previous": None if previous is None else previous.model_dump(mode="json"),
    }
    filled.pop("effective_at", None)
    given = {
        "effective_at": None if effective_at is None else _instant(effective_at),
        "title": title,
        "summary": summary,
    }
    filled.update({name: value for name, value in given.items() if value is not None})
    known = {name: filled[name] for name in _FIELDS if name in filled}
    data = (json.dumps({**known, **filled}, indent=2, ensure_ascii=False) + "\n").encode()
    parse(data)
    return data


def _instant(moment: datetime) -> str:
    """Write an instant as RFC 3339 in UTC, to the second."""
    return moment.astimezone(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")
