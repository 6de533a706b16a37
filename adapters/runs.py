"""What Temporal's server says about runs. Temporal's client is a driver here; no workflow code is imported."""

from datetime import timedelta
from typing import Any

from temporalio.client import Client
from temporalio.common import SearchAttributeKey
from temporalio.service import RPCError, RPCStatusCode

from constitution.errors import ForbiddenError, InvalidRequestError, NotFoundError, UnavailableError

TIMEOUT = timedelta(seconds=10)
_OUTCOME = SearchAttributeKey.for_keyword("ConstitutionOutcome")
_PERMANENT = frozenset({RPCStatusCode.INVALID_ARGUMENT, RPCStatusCode.FAILED_PRECONDITION, RPCStatusCode.UNIMPLEMENTED})
_FORBIDDEN = frozenset({RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNAUTHENTICATED})


class TemporalRuns:
    """Implements ``activities.ports.Runs``.

    Args:
        client: connected, in the namespace of the runs.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    async def describe(self, workflow_id: str, run_id: str | None) -> dict[str, Any]:
        """Return ``{status, workflow_id, run_id, type, close_time, outcome}``; ``run_id`` None means the latest run.

        ``outcome`` is the search attribute that a run sets when it has come to an outcome by itself, else None.

        Raises:
            NotFoundError: no such run, or its retention is over. UnavailableError: the server did not answer.
        """
        handle = self._client.get_workflow_handle(workflow_id, run_id=run_id)
        try:
            said = await handle.describe(rpc_timeout=TIMEOUT)
        except RPCError as error:
            raise _translated(error, workflow_id) from error
        return {
            "status": said.status.name if said.status is not None else "UNKNOWN",
            "workflow_id": said.id,
            "run_id": said.run_id,
            "type": said.workflow_type,
            "close_time": said.close_time,
            "outcome": said.typed_search_attributes.get(_OUTCOME),
        }

    async def history(self, workflow_id: str, run_id: str | None) -> bytes:
        """Return a run's history as JSON (UTF-8), the format of ``temporal workflow show -o json`` and the Replayer.

        Raises:
            NotFoundError, UnavailableError: as for ``describe``.
        """
        handle = self._client.get_workflow_handle(workflow_id, run_id=run_id)
        try:
            return (await handle.fetch_history(rpc_timeout=TIMEOUT)).to_json().encode()
        except RPCError as error:
            raise _translated(error, workflow_id) from error


def _translated(error: RPCError, workflow_id: str) -> Exception:
    if error.status == RPCStatusCode.NOT_FOUND:
        return NotFoundError(f"Temporal knows no run of {workflow_id!r}", hint="temporal workflow list shows the runs")
    if error.status in _FORBIDDEN:
        return ForbiddenError(f"Temporal refuses the worker: {error.message}")
    if error.status in _PERMANENT:
        return InvalidRequestError(f"Temporal cannot do this: {error.message}")
    return UnavailableError(f"Temporal did not answer: {error.message}")
