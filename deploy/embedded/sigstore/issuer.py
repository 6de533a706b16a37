"""The login of a private Sigstore: a small OpenID Connect issuer of the environment's people, and one of its CI jobs.

    python -m deploy.embedded.sigstore.issuer

Discovery, keys, authorization code with PKCE, one page with a name to choose and the stack's password. What it signs,
joserfc signs. A CI job asks for its token as a GitHub Actions job does. It is for development: one password for all
people proves that somebody may use this stack, and nothing about who of them it is.
"""

import hmac
import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode, urlsplit

import uvicorn
from fastapi import FastAPI, Form, Header, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from joserfc import jwt
from joserfc.jwk import ECKey

from deploy.embedded.sigstore.codes import CodeRefusedError, Codes
from deploy.embedded.sigstore.login_page import code_page, login_page

CLIENT = "sigstore"  # the audience that Fulcio demands
OUT_OF_BAND = "urn:ietf:wg:oauth:2.0:oob"
TOKEN_SECONDS = 600  # a person reads what they sign in between
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_ALGORITHM = "ES256"


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who can log in."""

    id: str
    name: str
    email: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerSettings:
    """What the issuer is started with.

    Args:
        url: its own, as clients write it.
        key: signs tokens.
        people: who can log in, by id.
        password: of the login page.
        ci_secret: what a CI job shows to get its token.
    """

    url: str
    key: ECKey
    people: dict[str, Person]
    password: str
    ci_secret: str


class Login:
    """Answers people."""

    def __init__(self, settings: IssuerSettings) -> None:
        self._settings = settings
        self._codes = Codes()

    def discovery(self) -> dict[str, Any]:
        """OpenID Connect Discovery 1.0."""
        return _discovery(self._settings.url) | {
            "authorization_endpoint": f"{self._settings.url}/auth",
            "token_endpoint": f"{self._settings.url}/token",
            "code_challenge_methods_supported": ["S256"],
            "grant_types_supported": ["authorization_code"],
        }

    def keys(self) -> dict[str, Any]:
        """What verifies the tokens."""
        return {"keys": [self._settings.key.as_dict(private=False)]}

    def ask(self, request: Request) -> HTMLResponse:
        """The page that asks who somebody is."""
        asked = _asked(dict(request.query_params))
        return login_page([(one.id, one.name, one.email) for one in self._settings.people.values()], asked)

    async def log_in(self, request: Request) -> Response:
        """Give out a code."""
        form = {name: str(value) for name, value in (await request.form()).items()}
        asked = _asked(form)
        person, password = self._settings.people.get(form.get("person", "")), form.get("password", "")
        if person is None or not hmac.compare_digest(password.encode(), self._settings.password.encode()):
            raise HTTPException(403, "no such person, or another password")
        try:
            code = self._codes.grant(person.id, asked["redirect_uri"], asked["code_challenge"])
        except CodeRefusedError as error:
            raise HTTPException(503, str(error)) from error
        if asked["redirect_uri"] == OUT_OF_BAND:
            return code_page(code)
        answer = urlencode({"code": code, "state": asked.get("state", "")})
        return RedirectResponse(f"{asked['redirect_uri']}?{answer}", 303)

    def redeem(
        self,
        *,
        grant_type: Annotated[str, Form()],
        code: Annotated[str, Form()],
        redirect_uri: Annotated[str, Form()],
        code_verifier: Annotated[str, Form()],
    ) -> dict[str, Any]:
        """Give an identity token for a code."""
        if grant_type != "authorization_code":
            raise HTTPException(400, "unsupported_grant_type")
        try:
            person = self._settings.people[self._codes.redeem(code, redirect_uri, code_verifier)]
        except CodeRefusedError as error:
            raise HTTPException(400, str(error)) from error
        claims = {"sub": person.id, "email": person.email, "email_verified": True}
        token = _token(self._settings.key, self._settings.url, claims)
        # sigstore-python, like other clients of Sigstore's own login, takes the access token for the identity.
        return {"access_token": token, "id_token": token, "token_type": "Bearer", "expires_in": TOKEN_SECONDS}


class CiSystem:
    """Answers CI jobs, at addresses below ``/ci``."""

    def __init__(self, settings: IssuerSettings) -> None:
        self._settings = settings
        self._url = f"{settings.url}/ci"

    def discovery(self) -> dict[str, Any]:
        """OpenID Connect Discovery 1.0."""
        return _discovery(self._url)

    def token(
        self,
        *,
        audience: Annotated[str, Query()],
        repository: Annotated[str, Query(pattern=r"^[\w.-]+/[\w.-]+$")],
        ref: Annotated[str, Query(pattern=r"^refs/[\w./-]+$")],
        workflow: Annotated[str, Query(pattern=r"^[\w./-]+$")],
        authorization: Annotated[str, Header()],
    ) -> dict[str, str]:
        """Give the token of a job: of which repository and ref, its system has written into its address."""
        scheme, _, secret = authorization.partition(" ")
        known = hmac.compare_digest(secret.encode(), self._settings.ci_secret.encode())
        if scheme.lower() != "bearer" or not known:
            raise HTTPException(401, "another secret")
        if audience != CLIENT:
            raise HTTPException(400, f"the audience is {CLIENT}")
        claims = {
            "sub": f"repo:{repository}:ref:{ref}",
            "repository": repository,
            "ref": ref,
            "job_workflow_ref": f"{repository}/{workflow}@{ref}",
        }
        return {"value": _token(self._settings.key, self._url, claims)}


def create_app(settings: IssuerSettings) -> FastAPI:
    """Return the issuer."""
    app = FastAPI(openapi_url=None)
    login, ci = Login(settings), CiSystem(settings)
    for prefix, discovery in (("", login.discovery), ("/ci", ci.discovery)):
        app.get(f"{prefix}/.well-known/openid-configuration")(discovery)
        app.get(f"{prefix}/keys")(login.keys)
    app.get("/auth")(login.ask)
    app.post("/auth")(login.log_in)
    app.post("/token")(login.redeem)
    app.get("/ci/token")(ci.token)
    return app


def _discovery(issuer: str) -> dict[str, Any]:
    return {
        "issuer": issuer,
        "jwks_uri": f"{issuer}/keys",
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [_ALGORITHM],
        "scopes_supported": ["openid", "email"],
    }


def _asked(said: dict[str, str]) -> dict[str, str]:
    """Return the parameters of an authorization request.

    Raises:
        HTTPException: it is none that this issuer answers; nobody is sent anywhere.
    """
    redirect = urlsplit(said.get("redirect_uri", ""))
    here = redirect.scheme == "http" and redirect.hostname in {"localhost", "127.0.0.1"} and not redirect.query
    if not here and said.get("redirect_uri") != OUT_OF_BAND:
        raise HTTPException(400, "redirect_uri is neither on this machine nor out of band")
    wanted = {"client_id": CLIENT, "response_type": "code", "code_challenge_method": "S256"}
    if any(said.get(name) != value for name, value in wanted.items()):
        raise HTTPException(400, f"only {urlencode(wanted)} is answered")
    if _CHALLENGE.fullmatch(said.get("code_challenge", "")) is None:
        raise HTTPException(400, "code_challenge is none")
    kept = (*wanted, "redirect_uri", "code_challenge", "state")
    return {name: said[name] for name in kept if name in said}


def _token(key: ECKey, issuer: str, claims: dict[str, Any]) -> str:
    now = int(time.time())
    said = {"iss": issuer, "aud": CLIENT, "iat": now, "exp": now + TOKEN_SECONDS, **claims}
    return jwt.encode({"alg": _ALGORITHM, "kid": key.kid, "typ": "JWT"}, said, key)


def main() -> None:
    """Serve; settings are in the environment."""
    port = int(os.environ["PORT"])
    people = json.loads(Path(os.environ["PEOPLE_FILE"]).read_text(encoding="utf-8"))
    settings = IssuerSettings(
        url=f"http://127.0.0.1:{port}",
        key=ECKey.import_key(json.loads(Path(os.environ["ISSUER_KEY_FILE"]).read_text(encoding="utf-8"))),
        people={one["id"]: Person(**one) for one in people},
        password=os.environ["LOGIN_PASSWORD"],
        ci_secret=os.environ["CI_SECRET"],
    )
    uvicorn.run(create_app(settings), host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    main()
