"""Under faults the engines decide as the domain does by the draft: before, during and after each fault."""

import httpx
import pytest
import redis
from chaos.decisions import Expected
from chaos.offers import everything_allowed, offers
from chaos.proxy import Fault
from chaos.stack import STALE_SECONDS, Stack, wait_until
from policy.drafts import Draft

from constitution.evaluation import Decision
from constitution.names import Names

BURST = 32  # requests at the same time
MET_TWICE = 2  # polls that have met a fault: the first may have begun before it


@pytest.fixture
def well(live: Stack) -> Stack:
    """Service and engines are well when a test begins."""
    live.recovered()
    return live


def test_burst_of_concurrent_requests(well: Stack, expected: Expected) -> None:
    assert expected.differences(well.services["a"].url, times=2, concurrency=BURST) == []


def test_forged_and_garbage_constitutions_change_nothing(well: Stack, draft: Draft, expected: Expected) -> None:
    for name, fault in offers(well):
        with well.proxy.during(fault):
            wait_until(lambda: well.proxy.met >= 2 * MET_TWICE, f"both engines were offered {name}")
            for engine in ("a", "b"):
                status = well.status(engine)
                assert status.checksum == draft.checksum, f"engine {engine} obeys {name}"
            assert well.status("a").last_error, f"engine a says nothing about {name}"
            if name == "a release signed by a stranger":
                assert expected.differences(well.services["a"].url) == []
    well.recovered()
    assert expected.differences(well.services["a"].url) == []


def test_slow_answers(well: Stack, expected: Expected) -> None:
    with well.proxy.during(Fault(delay=STALE_SECONDS / 4)):
        wait_until(lambda: well.proxy.met >= 1, "an engine has waited for a slow answer")
        assert expected.differences(well.services["a"].url) == []


def test_a_poisoned_cache_changes_nothing(well: Stack, draft: Draft) -> None:
    """Whoever can write to Redis, and has no key, cannot make the service serve another document."""
    cache = redis.Redis.from_url(well.scratch.redis_url)
    try:
        forged = everything_allowed(draft.data)
        cache.set(Names(well.namespace).redis_current(), well.current().replace(draft.data[:64], forged[:64]))
        assert well.served() == draft.data
        cache.set(Names(well.namespace).redis_current(), b"\x00 no JSON")
        assert well.served() == draft.data
    finally:
        cache.close()
    well.recovered()


def test_service_killed_and_restarted(well: Stack, expected: Expected) -> None:
    """Engine ``a`` goes on by the last good document; engine ``b``, which must not, denies until there is contact."""
    well.kill("service")
    assert expected.differences(well.services["a"].url) == []
    request, _ = expected.answers[0]

    url = f"{well.services['b'].url}/v1/evaluate"

    def stale() -> bool:
        answer = httpx.post(url, content=request.model_dump_json(), timeout=10).json()
        return (answer["decision"], answer["reason"]) == (Decision.DENY, "stale")

    wait_until(stale, f"engine b denies, having heard nothing for {STALE_SECONDS:g} s")
    wait_until(lambda: well.status("a").state == "stale", "engine a says that it is stale")
    assert expected.differences(well.services["a"].url) == []
    well.start("service")
    well.recovered()
    for engine in ("a", "b"):
        assert expected.differences(well.services[engine].url) == []


def test_engine_restarted_while_the_service_is_away(well: Stack, expected: Expected) -> None:
    """An engine that has read nothing decides nothing; one that has goes on."""
    request, _ = expected.answers[0]
    with well.proxy.during(Fault(cut=True)):
        well.kill("a")
        well.start("a")
        url = well.services["a"].url
        wait_until(lambda: httpx.get(f"{url}/healthz", timeout=5).status_code == httpx.codes.OK, "engine a is back")
        refused = httpx.post(f"{url}/v1/evaluate", content=request.model_dump_json(), timeout=10)
        assert refused.status_code == httpx.codes.SERVICE_UNAVAILABLE, refused.text
    well.recovered()
    assert expected.differences(url) == []
