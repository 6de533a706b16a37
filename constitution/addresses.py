"""Shows addresses in messages, logs and answers without secrets: a URL can hold a user name, a password, a token."""

from urllib.parse import urlsplit, urlunsplit


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
