"""Who calls: a short-lived token, signed with a key that the trust policy names, for one scope (default deny).

The trust policy and the environment are ``app.state.config`` (adapters.environment_config).
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, get_args

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import Headers
from starlette.types import Scope as ASGIScope

from adapters.environment_config import EnvironmentConfig
from constitution.errors import ForbiddenError
from constitution.trust.trust_policy import Scope
from signatures import tokens

MAX_TOKEN = 8192  # characters; ours have about 400
_bearer = HTTPBearer(auto_error=False, description="EdDSA JWT made by `signatures.tokens.mint`, at most 5 minutes old")


def check_token(config: EnvironmentConfig, credentials: HTTPAuthorizationCredentials | None, scope: str) -> str:
    """Return the id of the client whose token allows ``scope``.

    Raises:
        ForbiddenError: no token, not ours, expired, or without the scope.
    """
    if credentials is None or not credentials.credentials:
        raise ForbiddenError(
            f"this call needs a token with the scope {scope}", hint="send it as `Authorization: Bearer …`"
        )
    if len(credentials.credentials) > MAX_TOKEN:
        raise ForbiddenError(f"the token is longer than {MAX_TOKEN} characters")
    return tokens.verify(
        credentials.credentials,
        config.trust,
        environment=config.name,
        scope=scope,
        now=datetime.now(UTC),
    )


def holds_token(scope: ASGIScope) -> bool:
    """Return whether the caller's token holds for anything here; False in a service that knows no tokens."""
    config: EnvironmentConfig | None = getattr(scope["app"].state, "config", None)
    kind, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
    if config is None or kind.lower() != "bearer" or not token:
        return False
    credentials = HTTPAuthorizationCredentials(scheme=kind, credentials=token.strip())
    for name in get_args(Scope):
        try:
            check_token(config, credentials, name)
        except ForbiddenError:
            continue
        return True
    return False


def require_scope(scope: str) -> Callable[..., Awaitable[str]]:
    """Return a FastAPI dependency that gives the caller's client id, or refuses with 403.

    Use: ``client: Annotated[str, Depends(require_scope("load:write"))]``.
    """

    async def caller(
        request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
    ) -> str:
        client = check_token(request.app.state.config, credentials, scope)
        request.state.client = client
        return client

    return caller


def known_by(scope: str) -> Callable[..., Awaitable[str | None]]:
    """Return a FastAPI dependency that gives the id of a caller whose token allows ``scope``; None: anonymous.

    For calls that are open to everybody and limit anonymous callers. An invalid token counts as none.
    """

    async def caller(
        request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
    ) -> str | None:
        try:
            return check_token(request.app.state.config, credentials, scope)
        except ForbiddenError:
            return None

    return caller
