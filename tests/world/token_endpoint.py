"""A token endpoint (OAuth 2.0, client credentials) over TLS that signs JWTs, as a company's identity provider does."""

import base64
import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qs, unquote

from joserfc import jwt
from joserfc.jwk import ECKey

from tests.world.authority import Issued


class TokenEndpoint:
    """Gives a token to one client, for one scope.

    Args:
        certificate: of its own.
        folder: takes ``jwks.json`` (``keys``), by which its tokens are verified.
        lifetime: of each token.
    """

    ISSUER: ClassVar[str] = "https://identity.example"
    AUDIENCE: ClassVar[str] = "kafka"
    CLIENT: ClassVar[str] = "constitution"
    SCOPE: ClassVar[str] = "events"

    def __init__(self, certificate: Issued, folder: Path, *, lifetime: timedelta) -> None:
        folder.mkdir(exist_ok=True)
        self._certificate, self._lifetime = certificate, lifetime
        self._key = ECKey.generate_key("P-256", {"kid": "first", "use": "sig", "alg": "ES256"})
        self.keys = folder / "jwks.json"
        self.keys.write_text(json.dumps({"keys": [self._key.as_dict(private=False)]}), encoding="utf-8")
        self.secret = base64.urlsafe_b64encode(self._key.thumbprint().encode()).decode()
        self.given, self.down, self.foreign = 0, False, False

    @contextmanager
    def running(self) -> Iterator[str]:
        """Serve; yields its address."""
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                status, body = endpoint.answer(self.headers.get("Authorization", ""), form)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._certificate.certificate, self._certificate.key)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"https://127.0.0.1:{server.server_port}/token"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def answer(self, authorization: str, form: dict[str, list[str]]) -> tuple[int, bytes]:
        """Status and body for one request (RFC 6749, 4.4)."""
        if self.down:
            return 503, b"{}"
        kind, _, given = authorization.partition(" ")
        name, _, secret = base64.b64decode(given).decode().partition(":") if kind == "Basic" else ("", "", "")
        if (unquote(name), unquote(secret)) != (self.CLIENT, self.secret):
            return 401, b'{"error": "invalid_client"}'
        if form != {"grant_type": ["client_credentials"], "scope": [self.SCOPE]}:
            return 400, b'{"error": "invalid_scope"}'
        self.given += 1
        seconds = int(self._lifetime.total_seconds())
        body = {"access_token": self._token(seconds), "token_type": "Bearer", "expires_in": seconds}
        return 200, json.dumps(body).encode()

    def _token(self, seconds: int) -> str:
        now = int(time.time())
        claims = {"iss": self.ISSUER, "aud": self.AUDIENCE, "sub": self.CLIENT, "scope": self.SCOPE, "iat": now}
        key = ECKey.generate_key("P-256") if self.foreign else self._key
        return jwt.encode({"alg": "ES256", "kid": "first"}, claims | {"exp": now + seconds}, key)
