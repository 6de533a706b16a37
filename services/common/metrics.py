"""Metrics of an HTTP service, in a registry of its own, so that two apps in one process do not collide."""

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send


def new_registry() -> CollectorRegistry:
    """Return a registry with the usual facts about the process in it."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class HttpCounts:
    """How many requests were answered, and in what time, by method, route and status."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "http_requests", "HTTP requests answered", ("method", "route", "status"), registry=registry
        )
        self._seconds = Histogram(
            "http_request_seconds", "Time to answer, in seconds", ("method", "route"), registry=registry
        )
        # Looking labels up costs more than counting.
        self._series: dict[tuple[str, str, int], tuple[Callable[[], None], Callable[[float], None]]] = {}

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answer.

        Args:
            method: of the request; one that is not ours counts as ``other``.
            route: its template, never a path: an anonymous caller must not choose label values.
            status: of the answer.
            seconds: that it took.
        """
        series = self._series.get((method, route, status))
        if series is None:
            known = method if method in {"GET", "POST", "PUT", "DELETE"} else "other"
            series = self._requests.labels(known, route, str(status)).inc, self._seconds.labels(known, route).observe
            if known == method:
                self._series[method, route, status] = series
        series[0]()
        series[1](seconds)


class HttpMetrics:
    """ASGI middleware that counts every request."""

    def __init__(self, app: ASGIApp, counts: HttpCounts) -> None:
        self._app = app
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and count its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, observed)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            self._counts.answered(scope["method"], route, status, time.perf_counter() - started)
