"""What a rollback's preview says of a document that has expired."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from constitution.policy.document import parse
from constitution.policy.lapse import Caution
from constitution_client.verbs.rollback import expired_says
from tests.unit.keyring import document

EXPIRES = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("action", [None, "enforce", "require_approval", "deny"])
@pytest.mark.parametrize("grace", [None, 0, 3600])
@pytest.mark.parametrize("late", [timedelta(seconds=-1), timedelta(0), timedelta(minutes=30), timedelta(hours=2)])
def test_it_says_what_consumers_will_do(action: str | None, grace: int | None, late: timedelta) -> None:
    fields: dict[str, Any] = {"on_expiry": action, "expiry_grace": grace}
    given = {name: value for name, value in fields.items() if value is not None}
    dates = {"issued_at": "2025-01-01T00:00:00Z", "expires_at": "2026-01-01T00:00:00Z"}
    data = json.dumps(document(**dates, **given)).encode()
    now = EXPIRES + late
    said = expired_says(data, now)
    terms = parse(data).terms
    assert (said is not None) == terms.expired(now)
    if said is None:
        return
    words = {"enforce": "obey it", "require_approval": "approval", "deny": "denied"}[action or "deny"]
    assert words in said
    begun = terms.lapse(Caution(), now=now, stale=False)
    assert ("from 2026-01-01 01:00Z on" in said) == (grace == 3600 and late < timedelta(hours=1))
    if action != "enforce":
        assert (begun is None) == ("on every" in said or "on what" in said)
