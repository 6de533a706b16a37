"""One token for all targets, for one scope, and never an old one."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from adapters.targets import HttpTargets
from signatures.tokens import MAX_TTL, verify
from tests.unit.keyring import keyring


@pytest.fixture
async def targets() -> AsyncIterator[HttpTargets]:
    client = HttpTargets(keyring().worker, "development")
    yield client
    await client.aclose()


async def test_a_token_is_used_again_for_the_same_scope_alone(targets: HttpTargets) -> None:
    refresh, probe = targets._token("policy:refresh"), targets._token("probe")
    assert targets._token("policy:refresh") == refresh
    assert targets._token("probe") == probe != refresh


@pytest.mark.parametrize(
    "age", [MAX_TTL / 2, MAX_TTL, -timedelta(seconds=1)], ids=["half", "expired", "clock set back"]
)
async def test_a_token_holds_for_as_long_again_as_it_is_used(targets: HttpTargets, age: timedelta) -> None:
    first = targets._token("load:write")
    targets._tokens["load:write"] = (first, datetime.now(UTC) - age)
    second = targets._token("load:write")
    assert second != first
    later = datetime.now(UTC) + MAX_TTL / 2 - timedelta(seconds=2)
    assert verify(second, keyring().trust, environment="development", scope="load:write", now=later)
