"""The service's trust policy: watched while it runs, and remembered in PostgreSQL, so that no older one comes again."""

import os
import signal

import structlog

from constitution.errors import UnavailableError, UntrustedError
from constitution.trust.trust_policy import TrustPolicy
from constitution_follow.trust_watch import watch_trust
from services.constitution_service.context import Context
from services.constitution_service.tables import trust_versions

_log = structlog.get_logger(__name__)


async def start(context: Context) -> None:
    """Compare with what was in force before, and remember; a silent PostgreSQL does not keep the service from starting.

    Raises:
        UntrustedError: a higher version was in force.
    """
    try:
        await _remember(context, context.trust)
    except UnavailableError as error:
        _log.warning("trust_policy_not_compared", reason=error.message)


async def run(context: Context) -> None:
    """Take each next version, until cancelled. Ends the process where PostgreSQL knows of a higher one."""

    async def taken(policy: TrustPolicy) -> None:
        try:
            await _remember(context, policy)
        except UnavailableError as error:
            _log.warning("trust_policy_not_remembered", version=policy.version, reason=error.message)
        except UntrustedError as error:
            _log.critical("trust_policy_is_old", reason=error.message)
            os.kill(os.getpid(), signal.SIGTERM)

    await watch_trust(context.config.holder, taken)


async def state(context: Context) -> str:
    """Return what ``/readyz`` says of it: ok, or what is wrong."""
    refused = context.config.holder.refused
    return refused or context.key.trouble(context.trust) or "ok"


async def _remember(context: Context, policy: TrustPolicy) -> None:
    async with context.database.connection() as connection:
        await trust_versions.remember(connection, policy)
