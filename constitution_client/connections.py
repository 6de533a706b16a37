"""Makes the clients a verb needs from the settings; every missing setting is a usage error that names it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from constitution_client.files import read_text
from constitution_client.output import progress
from constitution_client.settings import LOAD_STACK, ClientSettings, UsageError, variables

if TYPE_CHECKING:
    from stamina.instrumentation import RetryDetails

    from constitution.trust.trust_policy import TrustPolicy
    from constitution_client.service import ConstitutionServiceClient
    from constitution_client.temporal import Runs


@asynccontextmanager
async def service_client(
    settings: ClientSettings, *, writes: bool = False
) -> "AsyncIterator[ConstitutionServiceClient]":
    """Open a client of constitution-service.

    Args:
        settings: the process's settings.
        writes: the verb changes something, so a client key and the environment's name are needed.

    Raises:
        UsageError: a setting is missing.
    """
    import stamina.instrumentation

    from constitution_client.service import ConstitutionServiceClient

    # Told to the person on stderr; stamina's own hook would log to stdout, which belongs to the result.
    stamina.instrumentation.set_on_retry_hooks([_tell_of_retry])
    if settings.constitution_service_url is None:
        raise UsageError("CONSTITUTION_SERVICE_URL is not set", hint=LOAD_STACK)
    key, environment = None, ""
    if writes:
        from signatures.tokens import ClientKey

        if settings.client_key_file is None:
            raise UsageError(
                "CLIENT_KEY_FILE is not set: this command changes something and signs for it", hint=LOAD_STACK
            )
        key = ClientKey.parse(read_text(settings.client_key_file, what="client key", secret=True))
        environment = settings.environment_name()
    async with ConstitutionServiceClient(settings.constitution_service_url, key, environment) as client:
        yield client


async def runs(settings: ClientSettings) -> "Runs":
    """Connect to Temporal.

    Raises:
        UnavailableError: it does not answer.
    """
    from constitution_client.temporal import Runs, connect

    return Runs(await connect(variables()), settings.names.task_queue())


def workflow_id_of(run: str, configured: ClientSettings) -> str:
    """Return a workflow id: ``run`` itself, or the update of that change request.

    Raises:
        UsageError: a change request is named, and no environment.
    """
    if "/" in run:
        return run
    return configured.names.update_id(configured.environment_name(), run)


async def run_named(run: str, configured: ClientSettings) -> "tuple[Runs, str]":
    """Connect to Temporal and find a run by what a person calls it.

    Args:
        run: a workflow id, or an update's change request. A run that was started under an id of its own
            (``update --id``, Temporal's own tools) may have one without a slash, so both are looked for.
        configured: the process's settings.

    Returns:
        the connection, and the workflow id; if there is neither, the one of the change request's update.

    Raises:
        UnavailableError: Temporal does not answer.
    """
    from constitution.errors import NotFoundError

    of_request = workflow_id_of(run, configured)  # first: a missing setting is reported before a server is asked
    connected = await runs(configured)
    if of_request == run:
        return connected, run
    for candidate in (of_request, run):
        try:
            await connected.describe(candidate)
        except NotFoundError:
            continue
        return connected, candidate
    return connected, of_request


def _tell_of_retry(details: "RetryDetails") -> None:
    progress(f"no answer yet; trying again in {details.wait_for:.1f} s: {details.caused_by}")


def trust_policy(settings: ClientSettings, path: Path | None = None) -> "TrustPolicy":
    """Load the trust policy named on the command line, or by the settings.

    Raises:
        UsageError: none is named.
        ConstitutionError: it is not valid.
    """
    from signatures.trust_files import load_trust

    return load_trust(path if path is not None else settings.trust_path())
