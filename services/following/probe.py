"""The probe scope: who may ask in the name of tenant ``runbook-probe``, choose the hour, and force a refresh."""

import structlog
from fastapi import Request
from fastapi.security import HTTPBearer

from adapters.environment_config import EnvironmentConfig
from constitution.errors import ConstitutionError, ForbiddenError
from constitution.policy.consumer_api import PROBE_TENANT
from services.common.auth import check_token

SCOPE = "probe"
_bearer = HTTPBearer(auto_error=False)
_log = structlog.get_logger(__name__)


async def require_probe(
    request: Request, config: EnvironmentConfig, *, tenant: str, own_time: bool = False, refreshes: bool = False
) -> None:
    """Let pass, unless the request needs scope ``probe`` and its token does not have it.

    Args:
        request: whose token counts.
        config: environment and trust policy.
        tenant: of the request.
        own_time: the request chooses the time that rules look at.
        refreshes: the request makes this replica, and the engine that it asks, read the constitution anew.

    Raises:
        ForbiddenError: and an ``audit`` log entry is written.
    """
    if tenant != PROBE_TENANT and not own_time and not refreshes:
        return
    try:
        client = check_token(config, await _bearer(request), SCOPE)
    except ForbiddenError:
        _log.warning(
            "probe_refused",
            audit=True,
            tenant=tenant,
            own_time=own_time,
            refreshes=refreshes,
            peer=request.client.host if request.client else None,
        )
        raise
    _log.debug("probe_allowed", audit=True, tenant=tenant, client=client)


async def log_refusal(request: Request, error: ConstitutionError) -> None:
    """Write the ``audit`` log entry of a refused call (``app.state.on_refused``)."""
    _log.warning(
        "call_refused",
        audit=True,
        path=request.url.path,
        code=error.code,
        peer=request.client.host if request.client else None,
    )
