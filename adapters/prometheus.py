"""Raw samples from Prometheus, through prometheus-api-client's instant-query API.

A range selector (``metric{…}[600s]``) as an *instant* query gives the samples as they were scraped; ``rate()`` and
stepped range queries extrapolate and repeat. Requests run in threads: the library is synchronous.
"""

import asyncio
import ssl
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import requests
from prometheus_api_client import PrometheusConnect
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.util.retry import Retry

from constitution.errors import InvalidRequestError, UnavailableError
from signatures.authorities import authorities

TIMEOUT = timedelta(seconds=10)  # a six hours' baseline of 1 s scrapes is answered in well under one


class PrometheusMetrics:
    """Implements ``activities.ports.Metrics``; close it.

    Args:
        url: of the server, e.g. ``http://127.0.0.1:9090``; credentials and a path before the API's own may be in it.
        token_file: holds the bearer token; read for each query, because whoever gives it out replaces it.
        certificate: PEM of the client's certificate, for mutual TLS.
        certificate_key: PEM of its key.
    """

    def __init__(
        self,
        url: str,
        *,
        token_file: Path | None = None,
        certificate: Path | None = None,
        certificate_key: Path | None = None,
    ) -> None:
        session = requests.Session()
        if token_file is not None:
            session.auth = _Bearer(token_file)
        session.trust_env = False  # a proxy that is meant for downloads must not see our queries
        session.hooks["response"].append(_refuse)
        # No retries of its own: the activity's policy decides, visibly.
        self._connection = PrometheusConnect(
            url=url.rstrip("/"), session=session, retry=Retry(0), timeout=int(TIMEOUT.total_seconds()), method="POST"
        )
        session.mount(url.rstrip("/"), _MachineTrust(certificate, certificate_key))

    async def matrix(self, query: str, at: datetime) -> list[dict[str, Any]]:
        """Return the entries of a range selector evaluated at ``at`` (aware).

        Raises:
            InvalidRequestError: Prometheus refuses the query.
            UnavailableError: no answer in time, or Prometheus says that it cannot.
        """
        return await asyncio.to_thread(self._query, query, {"time": f"{at.timestamp():.3f}"})

    async def instant(self, query: str) -> list[dict[str, Any]]:
        """Return the entries of an instant query, evaluated now.

        Raises:
            InvalidRequestError, UnavailableError: as for ``matrix``.
        """
        return await asyncio.to_thread(self._query, query, {})

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    def _query(self, query: str, parameters: dict[str, str]) -> list[dict[str, Any]]:
        try:
            found = self._connection.custom_query(query, params=parameters)
        except (requests.RequestException, KeyError, TypeError) as error:
            raise UnavailableError(
                f"Prometheus did not answer: {type(error).__name__}",
                hint="make status  # shows whether it runs; PROMETHEUS_URL says where it is looked for",
            ) from error
        if not isinstance(found, list):
            raise InvalidRequestError(f"Prometheus answered {query!r} with something that is no list of series")
        return found


class _Bearer(AuthBase):
    """Sends the token that is in a file at that moment."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        try:
            token = self._file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UnavailableError(f"PROMETHEUS_TOKEN_FILE cannot be read: {type(error).__name__}") from None
        request.headers["Authorization"] = f"Bearer {token}"
        return request


class _MachineTrust(HTTPAdapter):
    """Verifies by the machine's authorities, and not by the list that requests ships; may show a certificate."""

    def __init__(self, certificate: Path | None, key: Path | None) -> None:
        self._context = authorities()
        if certificate is not None:
            try:
                self._context.load_cert_chain(certificate, key)
            except (OSError, ssl.SSLError) as error:
                raise InvalidRequestError(f"PROMETHEUS_CERTIFICATE_FILE cannot be used: {error}") from None
        super().__init__(max_retries=Retry(0))

    def init_poolmanager(self, *args: Any, **named: Any) -> None:
        """Make the pools of connections."""
        super().init_poolmanager(*args, **named, ssl_context=self._context)

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Leave the context as it is: requests would add its list to it."""
        super().cert_verify(conn, url, verify, cert)
        conn.ca_certs = conn.ca_cert_dir = None


def _refuse(response: requests.Response, *_: Any, **__: Any) -> None:
    """Tell a refused query from a server in trouble; the library's own exception carries no status.

    Only Prometheus's own error document says that the *query* is wrong. A 401, 403 or 404 of an ingress, a login page
    or an authentication that expired say that Prometheus cannot be asked now, and that may pass.

    Source: Prometheus HTTP API, "Format overview": ``{"status": "error", "errorType": …, "error": …}``; 400
    ``bad_data`` and 422 ``execution`` are about the expression, 503 says that it timed out or was aborted.
    """
    if response.status_code == requests.codes.ok:
        return
    body = response.text[:300]
    if response.status_code in {400, 422} and _own_word(response):
        raise InvalidRequestError(f"Prometheus refuses the query with HTTP {response.status_code}: {body}")
    raise UnavailableError(
        f"Prometheus cannot be asked now: HTTP {response.status_code}: {body}",
        hint="check PROMETHEUS_URL, and that a proxy in front of it lets queries through",
    )


def _own_word(response: requests.Response) -> bool:
    try:
        body = response.json()
    except requests.JSONDecodeError:
        return False
    return (
        isinstance(body, dict) and body.get("status") == "error" and body.get("errorType") in {"bad_data", "execution"}
    )
