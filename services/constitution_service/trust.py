"""The service's trust policy: watched while it runs, and remembered in PostgreSQL, so that no older one comes again.

What is taken and what is refused is told to the audit stream: who is trusted changes by it.
"""

import os
import signal
from uuid import uuid4

import structlog

from constitution.api import AuditEvent
from constitution.errors import UnavailableError, UntrustedError
from constitution.trust.trust_policy import TrustPolicy
from constitution_follow.trust_watch import watch_trust
from services.constitution_service.audit import audit_events
from services.constitution_service.context import Context
from services.constitution_service.tables import trust_versions

TAKEN = "trust.taken"
REFUSED = "trust.refused"
ACTOR = "constitution-service"

_log = structlog.get_logger(__name__)


async def start(context: Context) -> None:
    """Compare with what was in force before, and remember; a silent PostgreSQL does not keep the service from starting.

    Raises:
        UntrustedError: a higher version was in force, or this one with other bytes.
    """
    try:
        await _remember(context, context.trust)
    except UnavailableError as error:
        _log.warning("trust_policy_not_compared", reason=error.message)
    except UntrustedError as error:
        await _tell(context, REFUSED, error.message, success=False)
        raise


async def run(context: Context) -> None:
    """Take each next version, until cancelled. Ends the process where PostgreSQL knows of a higher one."""

    async def taken(policy: TrustPolicy) -> None:
        context.memory.notice()  # what it serves is proved anew
        try:
            await _remember(context, policy)
        except UnavailableError as error:
            _log.warning("trust_policy_not_remembered", version=policy.version, reason=error.message)
        except UntrustedError as error:
            _log.critical("trust_policy_is_old", reason=error.message)
            await refused(error.message)
            os.kill(os.getpid(), signal.SIGTERM)

    async def refused(reason: str) -> None:
        await _tell(context, REFUSED, reason, success=False)

    await watch_trust(context.config.holder, taken, refused)


async def state(context: Context) -> str:
    """Return what ``/readyz`` says of it: ok, or what is wrong."""
    refused = context.config.holder.refused
    return refused or context.key.trouble(context.trust) or "ok"


async def _remember(context: Context, policy: TrustPolicy) -> None:
    async with context.database.transaction() as connection:
        if await trust_versions.remember(connection, policy):
            await audit_events.decision(
                connection,
                context,
                activity=TAKEN,
                actor=ACTOR,
                message=f"version {policy.version} of the trust policy is in force: {policy.checksum}",
                details={"version": policy.version, "checksum": policy.checksum},
            )


async def _tell(context: Context, activity: str, message: str, *, success: bool) -> None:
    """Audit what was refused; the version in force stays, whether or not anybody could be told."""
    event = AuditEvent(
        id=str(uuid4()),
        update_id="",
        workflow=audit_events.NO_WORKFLOW,
        activity=activity,
        success=success,
        actor=ACTOR,
        message=message[:4000],
        details={"in_force": context.trust.version},
    )
    await audit_events.write(context, event)
