"""The page on which a browser signs a statement with a passkey, and makes one. It takes nothing and decides nothing."""

from html import escape
from pathlib import Path
from string import Template
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Response

from constitution.errors import NotFoundError
from constitution.trust.passkey import RelyingParty
from services.constitution_service.routes.common import ServiceContext

router = APIRouter(tags=["passkeys"], include_in_schema=False)
_FOLDER: Final = Path(__file__).parents[1] / "passkeys"
_PAGE: Final = Template((_FOLDER / "page.html").read_text(encoding="utf-8"))
_HEADERS: Final = {
    # Only its own script and style, no frame around it, and no way to send anything anywhere.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def _pinned(context: ServiceContext) -> RelyingParty:
    party = context.config.trust.relying_party
    if party is None:
        raise NotFoundError(
            "the trust policy pins no relying party, so there are no passkeys here",
            hint="add [relying_party] to trust.toml (docs/trust-policy.md)",
        )
    return party


@router.get("/passkeys")
async def page(context: ServiceContext, party: Annotated[RelyingParty, Depends(_pinned)]) -> Response:
    """Give the page."""
    text = _PAGE.substitute(relying_party=escape(party.id), environment=escape(context.environment))
    return Response(text, media_type="text/html", headers=_HEADERS)


@router.get("/passkeys/page.js", dependencies=[Depends(_pinned)])
async def script() -> Response:
    """Give the page's script."""
    return Response((_FOLDER / "page.js").read_bytes(), media_type="text/javascript", headers=_HEADERS)


@router.get("/passkeys/page.css", dependencies=[Depends(_pinned)])
async def style() -> Response:
    """Give the page's style."""
    return Response((_FOLDER / "page.css").read_bytes(), media_type="text/css", headers=_HEADERS)
