"""What reaches a route of any service: bodies that are small, complete and unambiguous, or a problem."""

import httpx
import pytest

from constitution.api import ReadyReport
from constitution.errors import InvalidRequestError, UnavailableError
from constitution.model import Model
from services.common.app import create_app
from services.common.limits import BodyLimits
from services.common.strict_json import loads


class Body(Model):
    text: str = ""


async def ready() -> ReadyReport:
    return ReadyReport(status="degraded", checks={"x": "slow"})


@pytest.fixture
def http() -> httpx.AsyncClient:
    app = create_app(title="a service", ready=ready, limits=BodyLimits(default=1000, by_path={"/files": 5000}))

    @app.post("/echo")
    async def echo(body: Body) -> Body:
        return body

    @app.post("/files")
    async def files() -> str:
        return "taken"

    @app.get("/down")
    async def down() -> None:
        raise UnavailableError("the database is down")

    @app.get("/late")
    async def late() -> None:
        raise TimeoutError

    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://service")


async def test_a_good_body_passes(http: httpx.AsyncClient) -> None:
    answer = await http.post("/echo", json={"text": "ü"})
    assert (answer.status_code, answer.json()) == (200, {"text": "ü"})


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"text": "a", "text": "b"}', 400),
        (b'{"text": "' + b"x" * 1000 + b'"}', 413),
        (b"\xff", 400),
        (b'{"text": 1}', 422),
        (b'{"other": "secret-value"}', 422),
    ],
)
async def test_a_bad_body_is_a_problem_that_repeats_no_value(http: httpx.AsyncClient, body: bytes, status: int) -> None:
    answer = await http.post("/echo", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"].startswith("urn:somaagenthub:problem:")
    assert "secret-value" not in answer.text


async def test_json_is_small_everywhere_and_files_where_they_are_taken(http: httpx.AsyncClient) -> None:
    large = b'{"text": "' + b"x" * 2000 + b'"}'
    for content_type, status in (("application/json", 413), ("application/octet-stream", 200), ("text/yaml", 413)):
        answer = await http.post("/files", content=large, headers={"Content-Type": content_type})
        assert answer.status_code == status, content_type
    assert (await http.post("/files", content=b"x: 1", headers={"Content-Type": "text/yaml"})).status_code == 415


async def test_outages_are_503_with_retry_after(http: httpx.AsyncClient) -> None:
    for path in ("/down", "/late"):
        answer = await http.get(path)
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert answer.headers["retry-after"] == "1"


async def test_unknown_routes_and_methods_are_problems(http: httpx.AsyncClient) -> None:
    assert (await http.get("/nothing")).json()["code"] == "not-found"
    answer = await http.get("/echo")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


async def test_readiness_names_what_is_slow_and_metrics_count_routes(http: httpx.AsyncClient) -> None:
    assert (await http.get("/readyz")).json() == {"status": "degraded", "checks": {"x": "slow"}}
    await http.get("/a-path-that-a-stranger-chose")
    metrics = (await http.get("/metrics")).text
    assert 'route="/readyz"' in metrics
    assert "stranger" not in metrics


@pytest.mark.parametrize(
    "data",
    [
        b'{"a": "\\u0000"}',
        b'{"a": 9007199254740992}',
        b'{"\\u0000": 1}',
        b'["\\udc00"]',
        b"[-Infinity]",
        b"[1e400]",
        b"\xef\xbb\xbf{}",
        b"[" * 65 + b"]" * 65,
    ],
)
def test_what_readers_disagree_about_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        loads(data)


def test_plain_json_is_read() -> None:
    assert loads(b'{"a": [1, 1.5, "\\u00fc", null, true]}') == {"a": [1, 1.5, "\u00fc", None, True]}
    assert loads(b"[" * 64 + b"]" * 64)
