"""What reaches a route of any service: bodies that are small, complete and unambiguous, or a problem."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import httpx
import pytest
from fastapi import FastAPI, Request, Response

from adapters.environment_config import EnvironmentConfig
from constitution.api import ReadyReport
from constitution.environment import Environment
from constitution.errors import MAX_ISSUES, InvalidRequestError, UnavailableError
from constitution.model import Model
from services.common.answers import PIECE
from services.common.app import create_app
from services.common.limits import BYTES, DRAIN_LIMIT, FORM, SMALL, BodyLimits, Files
from services.common.strict_json import MAX_VALUES, loads
from signatures.tokens import mint
from signatures.trust_holder import TrustHolder
from tests.helpers import eventually
from tests.unit.keyring import DATA, keyring


class Body(Model):
    text: str = ""


async def ready() -> ReadyReport:
    return ReadyReport(status="degraded", checks={"x": "slow"})


@pytest.fixture
def http() -> httpx.AsyncClient:
    app = create_app(
        title="a service", ready=ready, limits=BodyLimits(default=1000, files={"/files": Files(BYTES, 5000)})
    )

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


@pytest.mark.parametrize("path", ["/echo", "/files", "/nothing"])
@pytest.mark.parametrize(
    "media_type", ["multipart/form-data; boundary=b", "application/x-www-form-urlencoded", "text/plain", "a/b", "+json"]
)
async def test_only_a_declared_media_type_passes_unread(http: httpx.AsyncClient, path: str, media_type: str) -> None:
    answer = await http.post(path, content=b"--b--", headers={"Content-Type": media_type})
    assert answer.status_code == (415 if media_type != "+json" else 400)


@pytest.mark.parametrize("charset", ["punycode", "idna", "undefined", "utf-7", "hex", '"punycode"', "unicode_escape"])
@pytest.mark.parametrize("media_type", ["multipart/form-data; boundary=b", "application/json"])
async def test_no_codec_is_taken_from_a_caller(charset: str, media_type: str) -> None:
    app = create_app(title="a service", ready=ready, limits=BodyLimits(files={"/form": Files(FORM, 1000)}))

    @app.post("/form")
    async def form(request: Request) -> list[str]:
        async with request.form() as read:
            return list(read)

    part = b'--b\r\nContent-Disposition: form-data; name="\xff-"; filename="d"\r\n\r\nx\r\n--b--\r\n'
    async with client(app) as http:
        for given, status in ((f"{media_type}; charset={charset}", 415), ("multipart/form-data; boundary=b", 200)):
            answer = await http.post("/form", content=part, headers={"Content-Type": given})
            assert answer.status_code == status, answer.text


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({f"k{n}": 0 for n in range(MAX_VALUES // 2 + 1)}),
        json.dumps({"text": [0] * MAX_VALUES}),
        json.dumps([[]] * (MAX_VALUES + 1)),
    ],
)
async def test_a_body_of_too_many_values_is_refused_before_each_is_a_problem(body: str) -> None:
    app = create_app(title="a service", ready=ready)

    @app.post("/echo")
    async def echo(body: Body) -> Body:
        return body

    async with client(app) as http:
        for sent, status in ((body, 400), (json.dumps({f"k{n}": 0 for n in range(9000)}), 422)):
            answer = await http.post("/echo", content=sent, headers={"Content-Type": "application/json"})
            assert answer.status_code == status
            assert len(answer.content) < 32 * 1024
    assert len(answer.json()["issues"]) == MAX_ISSUES + 1
    assert answer.json()["issues"][-1]["message"] == f"and {9000 - MAX_ISSUES} more problems"


async def test_head_is_answered_as_get_and_no_path_redirects(http: httpx.AsyncClient) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/nothing", "/echo"):
        got, head = await http.get(path), await http.head(path)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        assert head.headers["content-type"] == got.headers["content-type"]
    assert (await http.get("/healthz/")).status_code == 404


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


def client(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://service")


class Slow:
    """A body that has arrived up to its last byte, and waits with that one."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.sent = asyncio.Event()
        self.go_on = asyncio.Event()
        self.ended = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.data
        self.sent.set()
        await self.go_on.wait()
        yield b"x"
        self.ended.set()


@pytest.fixture
def files() -> FastAPI:
    """Takes files above what is drained, and holds little in all."""
    limits = BodyLimits(default=1000, files={"/files": Files(BYTES, 2 * DRAIN_LIMIT)}, held=4 * SMALL)
    app = create_app(title="a service", ready=ready, limits=limits)

    @app.post("/files")
    async def take(request: Request) -> int:
        return len(await request.body())

    return app


FILE = {"Content-Type": "application/octet-stream"}


async def test_a_file_is_taken_whole_or_not_at_all(files: FastAPI) -> None:
    async def parts(size: int) -> AsyncIterator[bytes]:
        for start in range(0, size, 1024 * 1024):
            yield b"x" * min(1024 * 1024, size - start)

    async with client(files) as http:
        http.headers["Authorization"] = f"Bearer {token(files)}"
        for size, answer in (
            (DRAIN_LIMIT + 2 * 1024 * 1024 + 1, 200),
            (2 * DRAIN_LIMIT, 200),
            (2 * DRAIN_LIMIT + 1, 413),
        ):
            given = await http.post("/files", content=parts(size), headers=FILE)
            assert given.status_code == answer
            assert answer != 200 or given.json() == size


def token(app: FastAPI) -> str:
    """A token that holds; the app is told whom to believe."""
    environment = Environment.parse('schema_version = 1\nenvironment = "development"\ngate = "gate"\n')
    app.state.config = EnvironmentConfig(environment=environment, holder=TrustHolder(keyring().trust), directory=DATA)
    return mint(keyring().worker, environment="development", scopes=["load:write"], now=datetime.now(UTC))


async def test_strangers_cannot_fill_the_memory_and_keep_out_nobody_who_holds_a_token(files: FastAPI) -> None:
    known = {"Authorization": f"Bearer {token(files)}"}
    forged = {"Authorization": f"Bearer {token(files)[:-8]}AAAAAAAA"}
    crowd = [Slow(b"x" * (2 * SMALL - 8)) for _ in range(2)]
    async with client(files) as http:
        waiting = [asyncio.create_task(http.post("/files", content=slow, headers=FILE)) for slow in crowd]
        await asyncio.gather(*(slow.sent.wait() for slow in crowd))

        for headers, size, status in (
            ({}, 2 * SMALL, 503),
            (forged, 2 * SMALL, 503),
            ({}, SMALL // 2, 200),
            (known, 2 * SMALL, 200),
        ):
            late = Slow(b"x" * size)
            late.go_on.set()
            answer = await http.post("/files", content=late, headers=FILE | headers)
            assert answer.status_code == status, (size, answer.text)
            assert status == 200 or (answer.json()["code"], answer.headers["retry-after"]) == ("too-many-bodies", "1")

        for slow in crowd:
            slow.go_on.set()
        assert [answer.json() for answer in await asyncio.gather(*waiting)] == [2 * SMALL - 7] * 2
        late = Slow(b"x" * 2 * SMALL)
        late.go_on.set()
        assert (await http.post("/files", content=late, headers=FILE)).status_code == 200  # what was held is let go


async def test_a_crowd_of_strangers_with_slow_json_holds_up_nobody_who_holds_a_token() -> None:
    app = create_app(title="a service", ready=ready)
    known = {"Authorization": f"Bearer {token(app)}", "Content-Type": "application/json"}
    crowd = [Slow(b"[" + b"1," * 600_000) for _ in range(6)]
    async with client(app) as http:
        hostile = [
            asyncio.create_task(http.post("/nothing", content=body, headers={"Content-Type": "application/json"}))
            for body in crowd
        ]
        for body in crowd:
            body.go_on.set()
        await asyncio.gather(*(body.ended.wait() for body in crowd))
        answer = await http.post("/nothing", content=b"[" + b" " * 2 * SMALL + b"]", headers=known)
        assert answer.status_code == 404
        assert sum(not task.done() for task in hostile) >= 3
        assert {(await task).status_code for task in hostile} == {400}


async def test_json_that_takes_long_to_read_holds_up_nobody_else() -> None:
    app = create_app(title="a service", ready=ready)
    body = Slow(b"[" + b"1," * 600_000)
    async with client(app) as http:
        hostile = asyncio.create_task(http.post("/nothing", content=body, headers={"Content-Type": "application/json"}))
        await body.sent.wait()
        body.go_on.set()
        await body.ended.wait()
        answer = await http.get("/healthz")
        assert answer.status_code == 200
        assert not hostile.done()
        assert (await hostile).status_code == 400


async def test_a_large_answer_arrives_whole() -> None:
    app = create_app(title="a service", ready=ready)

    @app.get("/large/{size}")
    async def large(size: int) -> Response:
        return Response(bytes(range(256)) * (size // 256))

    async with client(app) as http:
        for size in (0, PIECE, PIECE + 256, 10 * PIECE):
            answer = await http.get(f"/large/{size}")
            assert answer.content == bytes(range(256)) * (size // 256)
            assert answer.headers["content-length"] == str(size)


async def test_callers_without_a_token_share_places_and_keep_nobody_else_waiting() -> None:
    app = create_app(title="a service", ready=ready, anonymous_at_once=2)
    known = {"Authorization": f"Bearer {token(app)}"}
    go_on, begun = asyncio.Event(), 0

    @app.get("/slow")
    async def slow(at_once: bool = False) -> str:
        nonlocal begun
        begun += 1
        if not at_once:
            await go_on.wait()
        return "done"

    async with client(app) as http:
        crowd = [asyncio.create_task(http.get("/slow")) for _ in range(10)]
        await eventually(lambda: begun == 2)
        for path, headers in (("/healthz", {}), ("/readyz", {}), ("/slow?at_once=true", known)):
            assert (await http.get(path, headers=headers)).status_code == 200
        assert begun == 3
        go_on.set()
        assert {(await task).status_code for task in crowd} == {200}
