"""Logs a person in without a browser, as their browser would: for the demo, for tests, and to record bundles."""

import re
import secrets
from collections.abc import Mapping

import httpx

from deploy.embedded.sigstore.codes import challenge_of
from deploy.embedded.sigstore.issuer import CLIENT, OUT_OF_BAND

_CODE = re.compile(r"<code>([\w-]+)</code>")


def identity_token(settings: Mapping[str, str], person: str) -> str:
    """Return the identity token of a person of the stack.

    Args:
        settings: of the stack.
        person: their id.

    Raises:
        httpx.HTTPError: the issuer refuses, or is away.
    """
    verifier = secrets.token_urlsafe(32)
    asked = {
        "client_id": CLIENT,
        "response_type": "code",
        "redirect_uri": OUT_OF_BAND,
        "code_challenge": challenge_of(verifier),
        "code_challenge_method": "S256",
    }
    with httpx.Client(base_url=settings["SIGSTORE_ISSUER_URL"], trust_env=False, timeout=10) as client:
        form = asked | {"person": person, "password": settings["SIGSTORE_LOGIN_PASSWORD"]}
        page = client.post("/auth", data=form).raise_for_status().text
        code = _CODE.search(page)
        if code is None:
            raise httpx.DecodingError("the login page shows no code")
        redeemed = {
            "grant_type": "authorization_code",
            "code": code[1],
            "redirect_uri": OUT_OF_BAND,
            "code_verifier": verifier,
        }
        return str(client.post("/token", data=redeemed).raise_for_status().json()["access_token"])
