"""An ingress answers in front of a server: its word is not the server's, whatever the status.

Each caller that tells permanent from transient by an answer meets a proxy that answers instead of the real server.
"""

from collections.abc import Iterator

import pytest

from adapters.prometheus import PrometheusMetrics
from adapters.targets import HttpTargets
from constitution.api import Problem
from constitution.environment import Target
from constitution.errors import ForbiddenError, InvalidRequestError, UnavailableError
from constitution_client.service import ConstitutionServiceClient
from tests.resources import Prometheus
from tests.world.files import ENVIRONMENT, EnvironmentFiles
from tests.world.wire import Fault, Wire

STATUSES = (400, 401, 403, 404, 405, 409, 410, 413, 422)
PAGE = b"default backend - 404\n"


@pytest.fixture
def ingress(prometheus: Prometheus) -> Iterator[Wire]:
    """In front of Prometheus."""
    proxy = Wire(prometheus.url)
    yield proxy
    proxy.close()


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("body", [PAGE, b"", b"<html>403</html>", b'{"message": "no Route matched"}'])
async def test_prometheus_is_away_where_an_ingress_answers(ingress: Wire, status: int, body: bytes) -> None:
    metrics = PrometheusMetrics(ingress.url)
    try:
        assert await metrics.instant("vector(1)")
        with ingress.during(Fault(status=status, body=body)), pytest.raises(UnavailableError, match=f"HTTP {status}"):
            await metrics.instant("vector(1)")
        assert await metrics.instant("vector(1)")
    finally:
        metrics.close()


async def test_prometheus_refuses_a_query_in_its_own_words(prometheus: Prometheus) -> None:
    metrics = PrometheusMetrics(prometheus.url)
    try:
        with pytest.raises(InvalidRequestError, match="bad_data"):
            await metrics.instant("sum(")
    finally:
        metrics.close()


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_target_is_away_where_an_ingress_answers(environment_files: EnvironmentFiles, status: int) -> None:
    proxy = Wire()  # nobody is behind it
    target = Target(id="orchestrator-1", kind="orchestrator", url=proxy.url)
    targets = HttpTargets(environment_files.key("worker"), ENVIRONMENT)
    try:
        with proxy.during(Fault(status=status, body=PAGE)), pytest.raises(UnavailableError, match=f"HTTP {status}"):
            await targets.policy(target, force=True)
    finally:
        await targets.aclose()
        proxy.close()


async def test_a_target_refuses_a_token_in_its_own_words(environment_files: EnvironmentFiles) -> None:
    proxy = Wire()
    target = Target(id="orchestrator-1", kind="orchestrator", url=proxy.url)
    targets = HttpTargets(environment_files.key("worker"), ENVIRONMENT)
    said = Problem(
        type="urn:somaagenthub:problem:forbidden",
        title="Forbidden",
        status=403,
        code="forbidden",
        detail="this token is of another environment",
    )
    try:
        refusal = Fault(status=403, body=said.model_dump_json().encode())
        with proxy.during(refusal), pytest.raises(ForbiddenError):
            await targets.policy(target, force=True)
    finally:
        await targets.aclose()
        proxy.close()


@pytest.mark.parametrize("status", STATUSES)
async def test_constitution_service_is_away_where_an_ingress_answers(
    environment_files: EnvironmentFiles, status: int
) -> None:
    proxy = Wire()
    client = ConstitutionServiceClient(proxy.url, environment_files.key("worker"), ENVIRONMENT)
    try:
        with proxy.during(Fault(status=status, body=PAGE)), pytest.raises(UnavailableError, match=f"HTTP {status}"):
            await client.releases()
    finally:
        await client.aclose()
        proxy.close()
