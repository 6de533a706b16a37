"""The HTTP client with which a service asks others: the machine's authorities, no proxy, no redirect."""

from typing import Any

import httpx

from signatures.authorities import authorities


def http_client(**options: Any) -> httpx.AsyncClient:
    """Return a client; its owner closes it.

    ``trust_env`` is off: a proxy that is meant for downloads knows no loopback, and must not see tokens.

    Args:
        options: of httpx.AsyncClient, e.g. ``headers`` and ``timeout``.
    """
    return httpx.AsyncClient(follow_redirects=False, trust_env=False, verify=authorities(), **options)
