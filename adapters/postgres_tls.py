"""TLS to PostgreSQL by the machine's authorities, for the modes of libpq that verify the server.

asyncpg looks for the authority in ``~/.postgresql/root.crt`` alone, as libpq did; every other connection of ours trusts
what the machine trusts. So a URL that asks for ``verify-ca`` or ``verify-full`` and names no ``sslrootcert`` (or names
``system``, as libpq 16 does) gets that store. Client certificates are ``sslcert`` and ``sslkey``, as in libpq.
Source: PostgreSQL 18, 34.19 "SSL Support".
"""

import ssl
from urllib.parse import parse_qs, urlsplit

from constitution.errors import InvalidRequestError
from signatures.authorities import authorities


def tls(url: str) -> ssl.SSLContext | None:
    """Return the context for a connection; None where asyncpg does what the URL asks for by itself.

    Args:
        url: ``postgresql://…``; its query decides.

    Raises:
        InvalidRequestError: the client's certificate cannot be used.
    """
    query = {name: values[-1] for name, values in parse_qs(urlsplit(url).query).items()}
    mode = query.get("sslmode")
    if mode not in {"verify-ca", "verify-full"} or query.get("sslrootcert", "system") != "system":
        return None
    context = authorities()
    context.check_hostname = mode == "verify-full"
    if "sslcert" in query:
        try:
            context.load_cert_chain(query["sslcert"], query.get("sslkey"))
        except (OSError, ssl.SSLError) as error:
            raise InvalidRequestError(f"the client's certificate for PostgreSQL cannot be used: {error}") from None
    return context
