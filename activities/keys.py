"""Idempotency keys, and the check that a worker only acts in its own environment."""

from activities.ports import ActivityConfig
from constitution.errors import InvalidRequestError


def step_key(environment: str, update_id: str, step: str) -> str:
    """Return the ``Idempotency-Key`` of one step: ``<environment>/<update_id>/<step>``."""
    return f"{environment}/{update_id}/{step}"


def require_environment(config: ActivityConfig, environment: str) -> None:
    """Refuse work that was meant for another environment's worker.

    Raises:
        InvalidRequestError: ``environment`` is not this worker's.
    """
    own = config.name
    if environment != own:
        raise InvalidRequestError(
            f"this worker serves the environment {own!r}, not {environment!r}",
            hint="environments that share a Temporal server need a NAMESPACE each",
        )
