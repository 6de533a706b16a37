"""Toxiproxy's control API (github.com/Shopify/toxiproxy, README, HTTP API): proxies, and what is wrong with them."""

from typing import Any, Final

import httpx

SLOW_MS: Final = 800
"""Each read waits this long: far above a healthy answer, below every client's timeout; retries are not the cure."""

TOXICS: Final[dict[str, list[dict[str, Any]]]] = {
    "slow": [{"type": "latency", "attributes": {"latency": SLOW_MS, "jitter": 100}}],
    "reset": [{"type": "reset_peer", "attributes": {"timeout": 0}}],
    # Bytes are taken and never delivered, in both directions: a peer that lost its power.
    "half_open": [
        {"type": "timeout", "stream": "downstream", "attributes": {"timeout": 0}},
        {"type": "timeout", "stream": "upstream", "attributes": {"timeout": 0}},
    ],
}


class Toxics:
    """The proxies of one Toxiproxy.

    Args:
        url: of its control API.
    """

    def __init__(self, url: str) -> None:
        self._http = httpx.AsyncClient(base_url=url, timeout=10, trust_env=False)

    async def aclose(self) -> None:
        """Close the connection to the control API."""
        await self._http.aclose()

    async def put(self, name: str, port: int, upstream: str) -> None:
        """Make a proxy on a loopback port, or have an existing one lead elsewhere."""
        body = {"name": name, "listen": f"127.0.0.1:{port}", "upstream": upstream, "enabled": True}
        known = (await self._http.get("/proxies")).raise_for_status().json()
        path = f"/proxies/{name}" if name in known else "/proxies"
        (await self._http.post(path, json=body)).raise_for_status()

    async def inject(self, name: str, fault: str) -> None:
        """Break a proxy: ``down`` refuses and drops connections, the others are `TOXICS`."""
        if fault == "down":
            (await self._http.post(f"/proxies/{name}", json={"enabled": False})).raise_for_status()
            return
        for number, toxic in enumerate(TOXICS[fault]):
            body = {"name": f"{fault}-{number}", "toxicity": 1.0, **toxic}
            (await self._http.post(f"/proxies/{name}/toxics", json=body)).raise_for_status()

    async def heal(self) -> None:
        """Take every fault from every proxy."""
        (await self._http.post("/reset")).raise_for_status()
