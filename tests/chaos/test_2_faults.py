"""Under faults the engines decide as the domain does by the draft: before, during and after each fault."""

import json
from functools import partial
from http import HTTPStatus

import pytest
import redis
from chaos.connection import call
from chaos.decisions import Expected
from chaos.offers import everything_allowed, offers
from chaos.proxy import Fault
from chaos.stack import ENGINES, STALE_SECONDS, Stack, wait_until
from policy.drafts import Draft

from constitution.names import Names
from constitution.policy.evaluation import Decision
from constitution.release import CurrentConstitution

BURST = 24  # requests at the same time
MET_TWICE = 2  # polls that have met a fault: the first may have begun before it


@pytest.fixture
def well(live: Stack) -> Stack:
    """Service and engines are well when a test begins."""
    live.recovered()
    return live


def test_burst_of_concurrent_requests(well: Stack, expected: Expected) -> None:
    expected.hold(well.engine("a"), f"in a burst of {BURST} at a time", times=2, concurrency=BURST)


def test_forged_and_garbage_constitutions_change_nothing(well: Stack, draft: Draft, expected: Expected) -> None:
    for name, fault in offers(well):
        with well.proxy.during(fault):
            wait_until(lambda: well.proxy.met >= 2 * MET_TWICE, f"both engines were offered {name}")
            for engine in ENGINES:
                assert well.status(engine).checksum == draft.checksum, f"engine {engine} obeys {name}"
            assert well.status("a").last_error, f"engine a says nothing about {name}"
    expected.hold(well.engine("a"), "after forged and garbage constitutions")


def test_slow_answers(well: Stack, expected: Expected) -> None:
    with well.proxy.during(Fault(delay=STALE_SECONDS / 4)):
        wait_until(lambda: well.proxy.met >= 1, "an engine has waited for a slow answer")
        expected.hold(well.engine("a"), "while constitution-service is slow")


def _repaired(cache: redis.Redis, key: str, forged: bytes) -> bool:
    return bool(cache.get(key) != forged)


def test_a_poisoned_cache_changes_nothing(well: Stack, draft: Draft) -> None:
    """Whoever can write to Redis, and has no key, cannot make the service serve another document."""
    cache = redis.Redis.from_url(well.scratch.redis_url)
    key = Names(well.namespace).redis_current()
    try:
        current = CurrentConstitution.model_validate_json(well.current())
        forged = current.model_copy(update={"document": everything_allowed(draft.data).decode()})
        for value in (forged.model_dump_json().encode(), b"\x00 no JSON"):
            cache.set(key, value)
            assert well.served() == draft.data
            wait_until(partial(_repaired, cache, key, value), "the service has overwritten a poisoned value")
    finally:
        cache.close()


def test_service_killed_and_restarted(well: Stack, expected: Expected) -> None:
    """Engine ``a`` goes on by the last good document; engine ``b``, which must not, denies until there is contact."""
    well.kill("service")
    expected.hold(well.engine("a"), "just after constitution-service was killed")

    def stale() -> bool:
        answer = json.loads(expected.ask_one(well.engine("b")).body)
        return (answer["decision"], answer["reason"]) == (Decision.DENY, "stale")

    wait_until(stale, f"engine b denies, having heard nothing for {STALE_SECONDS:g} s")
    wait_until(lambda: well.status("a").state == "stale", "engine a says that it is stale")
    expected.hold(well.engine("a"), f"{STALE_SECONDS:g} s after constitution-service was killed")
    well.start("service")
    well.recovered()
    expected.hold(well.engine("a"), "after constitution-service came back")
    wait_until(partial(expected.holds_for_one, well.engine("b")), "engine b decides by the draft again")


def test_engine_restarted_while_the_service_is_away(well: Stack, expected: Expected) -> None:
    """An engine that has read nothing decides nothing."""
    with well.proxy.during(Fault(cut=True)):
        well.kill("a")
        well.start("a")
        url = well.engine("a")
        wait_until(lambda: call(url, "/healthz").status == HTTPStatus.OK, "engine a is back")
        refused = expected.ask_one(url)
        assert refused.status == HTTPStatus.SERVICE_UNAVAILABLE, refused.body
    well.recovered()
    expected.hold(url, "after the engine was killed and came back")
