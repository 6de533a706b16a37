"""An HTTP client of servers on this machine: plain HTTP, no proxy."""

import ssl

import httpx


def loopback(timeout: float = 5.0, base_url: str = "") -> httpx.AsyncClient:
    """Return a client that trusts no certificate authority: nothing here speaks TLS.

    By default httpx reads a list of authorities for each client, in about 15 ms of CPU; a supervisor makes one for
    each question whether a server answers.

    Args:
        timeout: Of each step of a request, in seconds.
        base_url: What relative addresses begin with.
    """
    nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return httpx.AsyncClient(base_url=base_url, timeout=timeout, trust_env=False, follow_redirects=False, verify=nobody)
