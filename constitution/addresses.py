"""Shows addresses in messages, logs and answers without secrets: a URL can hold a user name, a password, a token."""

import re
from urllib.parse import urlsplit, urlunsplit

_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}")
_PORT = re.compile(r"[0-9]{1,5}")


def host_of(url: str) -> str:
    """Return ``host:port`` of a URL, and nothing of its user, path and query."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "an address that cannot be read"
    if not host:
        return "an address without a host"
    host = f"[{host}]" if ":" in host else host
    return host if port is None else f"{host}:{port}"


def link_of(url: str) -> str:
    """Return a URL that others may read and open: without user name and password, which stand before its host."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def split_host(address: object) -> tuple[str, int]:
    """Return host and port of ``host:port``.

    Raises:
        ValueError: it is none. An IPv6 address is no host here: give it a name.
    """
    host, _, port = str(address).rpartition(":")
    if _HOST.fullmatch(host) is None or _PORT.fullmatch(port) is None or not 0 < int(port) < 65536:
        raise ValueError(f"{str(address)[:100]!r} is no host:port")
    return host, int(port)
