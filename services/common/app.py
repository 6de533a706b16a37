"""Builds a service's FastAPI app: problems, body limits, metrics, health. The service adds its own routes.

``app.state.config`` (adapters.environment_config.EnvironmentConfig) must be set where ``require_scope`` is used;
``app.state.on_refused`` may be set; it is called for every refused mutating call.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Protocol

from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.types import ASGIApp, Receive, Scope, Send

from constitution.api import ReadyReport
from services.common import problems
from services.common.answers import AnswerGuard
from services.common.auth import holds_token
from services.common.head import HeadAsGet
from services.common.limits import BodyGuard, BodyLimits
from services.common.metrics import HttpCounts, HttpMetrics, new_registry
from services.common.turns import AnonymousTurns

Ready = Callable[[], Awaitable[ReadyReport]]
"""Says how the service's dependencies are; must not raise, and must answer within seconds."""

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


class Shortcut(Protocol):
    """Makes the middleware that stands before all others."""

    def __call__(self, app: ASGIApp, counts: HttpCounts) -> ASGIApp:
        """Return the middleware; what it does not answer goes on to ``app``."""
        ...


class _App(FastAPI):
    """FastAPI with something before it: its own layers cost a request as much as an answer from memory does."""

    first: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self.first or super().__call__)(scope, receive, send)


@asynccontextmanager
async def _nothing(_app: FastAPI) -> AsyncIterator[None]:
    yield


def create_app(
    *,
    title: str,
    ready: Ready,
    lifespan: Lifespan = _nothing,
    registry: CollectorRegistry | None = None,
    limits: BodyLimits | None = None,
    anonymous_at_once: int | None = None,
    shortcut: Shortcut | None = None,
) -> FastAPI:
    """Return an app with ``/healthz``, ``/readyz``, ``/metrics``, ``/docs`` and problem answers.

    Args:
        title: name of the service.
        ready: answers ``/readyz``: 200 for ``ok`` and ``degraded``, 503 for ``unavailable``.
        lifespan: opens what the service needs, and closes it in reverse.
        registry: where the service's own metrics live; a new one if None.
        limits: most bytes per body.
        anonymous_at_once: most requests of callers without a token that are worked on at once; None: any number.
        shortcut: answers what needs no limit, before anything else looks at the request; it counts what it answers.
    """
    registry = registry if registry is not None else new_registry()
    counts = HttpCounts(registry)
    app = _App(title=title, version="1", lifespan=lifespan, redoc_url=None, redirect_slashes=False)
    if shortcut is not None:
        app.first = shortcut(partial(FastAPI.__call__, app), counts)
    app.state.registry = registry
    problems.install(app)
    if anonymous_at_once is not None:  # innermost: its places are for requests that are complete
        app.add_middleware(AnonymousTurns, known=holds_token, at_once=anonymous_at_once)
    app.add_middleware(AnswerGuard)
    app.add_middleware(BodyGuard, limits=limits or BodyLimits(), known=holds_token)
    app.add_middleware(HttpMetrics, counts=counts)
    app.add_middleware(HeadAsGet)

    @app.get("/healthz", tags=["operations"])
    async def healthz() -> dict[str, str]:
        """The process is alive; says nothing about what it needs."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["operations"])
    async def readyz(response: Response) -> ReadyReport:
        """What this service needs, one by one."""
        report = await ready()
        if report.status == "unavailable":
            response.status_code = 503
            response.headers["Retry-After"] = str(problems.RETRY_AFTER_SECONDS)
        return report

    @app.get("/metrics", tags=["operations"], include_in_schema=False)
    async def metrics() -> Response:
        return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return app
