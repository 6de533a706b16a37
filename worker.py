"""The worker: settings, adapters, activities, workflows; then poll until stopped.

The only place that knows which adapter stands behind which Protocol. Run it with ``python worker.py``; settings are
environment variables (``adapters/settings.py``; Temporal's own by ``temporalio.envconfig``).

Exit codes: 0 after SIGTERM or SIGINT, when running activities have ended or were handed back; 1 when something that it
needs is not there; 2 when the settings are wrong, with every problem on stderr. A second signal ends it at once.
"""

import asyncio
import hashlib
import importlib.metadata
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar

import stamina
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.client import Client
from temporalio.common import MetricMeter, VersioningBehavior, WorkerDeploymentVersion
from temporalio.envconfig import ClientConfig
from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Worker, WorkerDeploymentConfig

from activities.archive import ArchiveRelease
from activities.audit import Audit
from activities.broadcast import Broadcast
from activities.callers import OnlyOurRuns
from activities.confirm import Confirm
from activities.deployment import DeploymentActivities
from activities.orders import Orders
from activities.preconditions import Preconditions
from activities.publish import Publish
from activities.reconcile.archive_checks import ArchiveChecks
from activities.reconcile.reconcile import Reconcile
from activities.reconcile.run_checks import RunChecks
from activities.reconcile.target_checks import TargetChecks
from activities.restore import Restore
from activities.run_group import RunGroup
from activities.runs import RunsActivities
from activities.stage import Stage
from activities.validate import Validate
from adapters import memory
from adapters.archive import GitArchive
from adapters.event_log import KafkaEventLog
from adapters.ledger import PostgresLedger
from adapters.postgres import Database
from adapters.process_settings import read_settings
from adapters.redis_cache import ConstitutionCache
from adapters.redis_client import connect as connect_redis
from adapters.runs import TemporalRuns, TemporalSearch
from adapters.schedule import schedule_reconciliation
from adapters.settings import PollingSettings, WorkerSettings
from adapters.slack import SlackChannel
from adapters.targets import HttpTargets
from adapters.worker_config import WorkerConfig, load_worker_config
from constitution.addresses import link_of
from constitution.errors import ConstitutionError, InvalidRequestError, Issue, UnavailableError
from constitution.names import Names
from constitution.reconciliation import stack_of
from constitution.trust.trust_policy import TrustPolicy
from constitution_client.exit import leave
from constitution_client.service import ConstitutionServiceClient
from constitution_follow.trust_watch import watch_trust
from services.common.logs import configure_logging
from signatures.archive_manifests import sign_manifest
from signatures.tokens import ClientKey
from signatures.trust_holder import TrustHolder
from workflows.conversion import data_converter
from workflows.guard import ConstitutionGuard
from workflows.one_argument import OneArgument
from workflows.reconcile import ConstitutionReconcile
from workflows.rollback import ConstitutionRollback
from workflows.sandbox import workflow_runner
from workflows.status import SEARCH_ATTRIBUTES
from workflows.update import ConstitutionUpdate

WORKFLOWS: Sequence[type] = (ConstitutionUpdate, ConstitutionRollback, ConstitutionGuard, ConstitutionReconcile)
UNVERSIONED = "constitution-runbook"  # the deployment name of workers that belong to no deployment
CONNECT_FOR = timedelta(seconds=30)  # a Temporal server that is being restarted is back within ten
STICKY = timedelta(seconds=1)  # default 10 s: so long would each run wait after its worker was killed (measured)
THROTTLE = timedelta(seconds=1)  # default 60 s: an activity learns of a cancel only from the answer to a heartbeat
ACTIVITIES_AT_ONCE = 64  # watches and waits are idle most of the time; the gate's processes bound themselves
WORKFLOW_TASKS_AT_ONCE = 16  # each replays in a thread of its own
PACKAGES = ("activities", "adapters", "constitution", "constitution_client", "signatures", "workflows")

_T = TypeVar("_T")


class _HasSettings(Protocol):
    @property
    def settings(self) -> PollingSettings: ...


_Configured = TypeVar("_Configured", bound=_HasSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """Everything that was read before anything was connected."""

    settings: WorkerSettings
    config: WorkerConfig
    client_key: ClientKey
    archive: GitArchive
    temporal: dict[str, Any]


def signer(environment: str, key: ClientKey) -> Callable[[str, bytes], bytes]:
    """Return what signs the manifest of each folder that this worker archives."""
    owner, private = key.id, key.private_key
    return lambda folder, manifest: sign_manifest(environment, folder, manifest, owner, private)


def configure() -> Configuration:
    """Read settings and the files that they name.

    Raises:
        InvalidRequestError: with every problem found.
    """
    problems: list[Issue] = []
    temporal = collected(read_temporal, problems, "TEMPORAL_ADDRESS")
    settings = collected(lambda: read_settings(WorkerSettings), problems, "settings")
    if settings is None:
        raise refusal("worker", problems)
    links = {"constitution-service": link_of(settings.constitution_service_url)}
    if settings.temporal_ui_url is not None:
        links["Temporal UI"] = link_of(settings.temporal_ui_url)
    config = collected(
        lambda: load_worker_config(settings.environment_file, scratch=settings.evidence_directory, links=links),
        problems,
        "ENVIRONMENT_FILE",
    )
    client_key = collected(lambda: ClientKey.load(settings.client_key_file), problems, "CLIENT_KEY_FILE")
    sign = signer(config.environment.environment, client_key) if config and client_key else None
    archive = collected(lambda: GitArchive(settings.archive_repository, sign), problems, "ARCHIVE_REPOSITORY")
    if config is None or client_key is None or archive is None or temporal is None:
        raise refusal("worker", problems)
    return Configuration(settings=settings, config=config, client_key=client_key, archive=archive, temporal=temporal)


def collected(read: Callable[[], _T], problems: list[Issue], name: str) -> _T | None:
    """Return what ``read`` returns, or None and its problems on the list."""
    try:
        return read()
    except ConstitutionError as error:
        problems += error.issues or [Issue(code=error.code, path=name, message=error.message, hint=error.hint)]
        return None


def refusal(name: str, problems: Sequence[Issue]) -> InvalidRequestError:
    """Return why a process of this name cannot start."""
    return InvalidRequestError(
        f"the {name} cannot start", issues=problems, hint="make up  # writes every setting to var/stack.env"
    )


def read_temporal() -> dict[str, Any]:
    """Read Temporal's own configuration, as its CLI does.

    Raises:
        InvalidRequestError: it cannot be read.
    """
    try:
        return dict(ClientConfig.load_client_connect_config())
    except (RuntimeError, ValueError) as error:
        raise InvalidRequestError(f"Temporal's configuration cannot be read: {error}") from error


def build_id() -> str:
    """Return what names this very code: the package's version and a digest of the sources.

    Two workers with the same id run the same code; a changed checkout has another id than the release it came from.
    """
    digest = hashlib.sha256()
    here = Path(__file__).resolve().parent
    for path in (Path(__file__), *sorted(p for package in PACKAGES for p in (here / package).rglob("*.py"))):
        digest.update(path.resolve().relative_to(here).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    try:
        version = importlib.metadata.version("constitution-runbook")
    except importlib.metadata.PackageNotFoundError:  # a checkout that was never installed
        version = "0"
    return f"{version}-{digest.hexdigest()[:12]}"


def deployment_of(settings: WorkerSettings) -> WorkerDeploymentConfig:
    """Return under which deployment and build this worker polls.

    With a deployment's name it is versioned: it gets the runs that began on its build, which are pinned to it, and new
    ones once it is the current one (docs.temporal.io, Worker Versioning). A guard or rollback stays on the build of the
    run that started it. Without a name, the build only identifies the code.
    """
    name = settings.temporal_deployment_name
    build = settings.temporal_worker_build_id or build_id()
    return WorkerDeploymentConfig(
        version=WorkerDeploymentVersion(deployment_name=name or UNVERSIONED, build_id=build),
        use_worker_versioning=name is not None,
        # Here and not at the workflows: the server refuses each task of a worker that declares it and is unversioned.
        default_versioning_behavior=VersioningBehavior.PINNED if name else VersioningBehavior.UNSPECIFIED,
    )


def _how_to_begin(version: WorkerDeploymentVersion) -> str:
    return (
        f"worker: build {version.build_id} of {version.deployment_name}: new runs begin on the current build; to make"
        f" this one current: temporal worker deployment set-current-version --deployment-name {version.deployment_name}"
        f" --build-id {version.build_id}\n"
    )


@asynccontextmanager
async def activities(configuration: Configuration, client: Client) -> AsyncIterator[list[Callable[..., Any]]]:
    """Build every adapter once, hand them to the activities, and close them in reverse."""
    settings, config = configuration.settings, configuration.config
    environment = config.name
    names = Names(settings.namespace)
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(
            ConstitutionServiceClient(settings.constitution_service_url, configuration.client_key, environment)
        )
        database = Database(
            settings.database_reader_url.get_secret_value(),
            application_name="constitution-worker",
            connections=8,
            password_file=settings.database_password_file,
        )
        await database.open()
        stack.push_async_callback(database.close)
        redis = connect_redis(settings.redis_url.get_secret_value())
        stack.push_async_callback(redis.aclose)
        targets = HttpTargets(configuration.client_key, environment)
        stack.push_async_callback(targets.aclose)
        ledger = PostgresLedger(database, environment)
        events = KafkaEventLog(settings.kafka_client(), names)
        channel = SlackChannel(settings.slack_bot_token.get_secret_value(), settings.slack_api_url)
        runs, search = TemporalRuns(client), TemporalSearch(client, names.task_queue())
        publish = Publish(
            service=service,
            ledger=ledger,
            cache=ConstitutionCache(redis, names),
            events=events,
            config=config,
        )
        holders: tuple[object, ...] = (
            DeploymentActivities(config=config, namespace=settings.namespace),
            Preconditions(service=service, config=config),
            Stage(service=service, config=config),
            Validate(service=service, config=config),
            publish,
            Confirm(service=service, config=config, publish=publish),
            Broadcast(channel=channel, ledger=ledger, service=service, config=config),
            ArchiveRelease(service=service, archive=configuration.archive, events=events, runs=runs, config=config),
            Restore(service=service, config=config),
            RunGroup(service=service),
            Audit(service=service),
            Orders(service=service, config=config),
            RunsActivities(runs=runs),
            Reconcile(service=service, config=config, runs=runs, search=search, names=names),
            TargetChecks(service=service, targets=targets, topic=events, config=config),
            ArchiveChecks(
                service=service, repository=configuration.archive, announcements=channel, search=search, config=config
            ),
            RunChecks(search=search),
        )
        yield [method for holder in holders for method in methods_of(holder)]


def workflow_names() -> list[str]:
    """Return the names of our workflow types: only their runs have activities run."""
    return [definition.name for cls in WORKFLOWS if (definition := getattr(cls, "__temporal_workflow_definition")).name]


def methods_of(holder: object) -> list[Callable[..., Any]]:
    """Return the bound methods that ``@activity.defn`` marks."""
    names = [
        name for name in dir(type(holder)) if hasattr(getattr(type(holder), name), "__temporal_activity_definition")
    ]
    return [getattr(holder, name) for name in names]


def runtime(settings: PollingSettings) -> Runtime:
    """Return Temporal's runtime with metrics for Prometheus on ``HOST:METRICS_PORT``.

    Raises:
        UnavailableError: the port is taken.
    """
    address = f"{settings.host}:{settings.metrics_port}"
    try:
        return Runtime(telemetry=TelemetryConfig(metrics=PrometheusConfig(bind_address=address)))
    except (RuntimeError, ValueError) as error:
        raise UnavailableError(
            f"the metrics cannot listen on {address}: {error}", hint="set METRICS_PORT to a free port"
        ) from error


async def connect(settings: PollingSettings, temporal: dict[str, Any], identity: str) -> Client:
    """Connect to Temporal, waiting up to ``CONNECT_FOR`` for a server that is being restarted.

    Raises:
        UnavailableError: it does not answer.
    """
    address = temporal.get("target_host") or "localhost:7233"
    config = temporal | {
        "target_host": address,
        "data_converter": data_converter,
        "runtime": runtime(settings),
        "identity": identity,
    }
    try:
        async for attempt in stamina.retry_context(on=(RPCError, RuntimeError), attempts=None, timeout=CONNECT_FOR):
            with attempt:
                return await Client.connect(**config)
    except (RPCError, RuntimeError) as error:
        raise UnavailableError(
            f"Temporal at {address} does not answer: {error}", hint="TEMPORAL_ADDRESS says where it is looked for"
        ) from error
    raise AssertionError  # pragma: no cover - stamina ends by returning or raising


async def require_search_attributes(client: Client) -> None:
    """Refuse to start where a search attribute is not registered: each workflow task would fail, for ever.

    Raises:
        UnavailableError: names the missing ones, and the commands that register them.
    """
    request = ListSearchAttributesRequest(namespace=client.namespace)
    try:
        known = (await client.operator_service.list_search_attributes(request)).custom_attributes
    except RPCError as error:
        if error.status not in (RPCStatusCode.UNIMPLEMENTED, RPCStatusCode.PERMISSION_DENIED):
            raise UnavailableError(f"Temporal does not list its search attributes: {error.message}") from error
        logging.getLogger("worker").warning("search_attributes_not_checked: %s", error.message)
        return
    missing = [key for key in SEARCH_ATTRIBUTES if key.name not in known]
    if missing:
        raise UnavailableError(
            "search attributes are not registered: " + ", ".join(key.name for key in missing),
            hint="; ".join(
                "temporal operator search-attribute create"
                f" --name {key.name} --type {key.indexed_value_type.name.title()}"
                for key in missing
            ),
        )


async def schedule(configuration: Configuration, client: Client) -> None:
    """Have reconciliation run by itself, unless the setting says that this worker does not.

    Raises:
        UnavailableError: Temporal does not take the schedule.
    """
    settings = configuration.settings
    if settings.reconcile_seconds == 0:
        logging.getLogger("worker").warning("reconciliation_not_scheduled")
        return
    await schedule_reconciliation(
        client,
        Names(settings.namespace),
        configuration.config.name,
        every=timedelta(seconds=settings.reconcile_seconds),
        closed_seconds=settings.reconcile_closed_seconds,
    )


async def serve(configuration: Configuration) -> None:
    """Poll until SIGTERM or SIGINT, then drain.

    Raises:
        UnavailableError: Temporal is not there at the start, or ends this worker for good.
    """
    stop = asked_to_stop()
    settings = configuration.settings
    deployed = deployment_of(settings)
    build = deployed.version.build_id
    stack = stack_of(configuration.config.trust)
    client = await connect(settings, configuration.temporal, f"{socket.gethostname()}/{os.getpid()}#{stack}@{build}")
    await require_search_attributes(client)
    await schedule(configuration, client)
    task_queue = Names(settings.namespace).task_queue()
    async with activities(configuration, client) as methods:
        worker = Worker(
            client,
            task_queue=task_queue,
            workflows=WORKFLOWS,
            activities=methods,
            workflow_runner=workflow_runner(),
            interceptors=[
                OneArgument(),
                OnlyOurRuns(runs=TemporalRuns(client), task_queue=task_queue, workflows=workflow_names()),
            ],
            deployment_config=deployed,
            max_concurrent_activities=ACTIVITIES_AT_ONCE,
            max_concurrent_workflow_tasks=WORKFLOW_TASKS_AT_ONCE,
            sticky_queue_schedule_to_start_timeout=STICKY,
            max_heartbeat_throttle_interval=THROTTLE,
            default_heartbeat_throttle_interval=THROTTLE,
            graceful_shutdown_timeout=timedelta(seconds=settings.drain_seconds),
        )
        sys.stderr.write(
            f"worker: polling {task_queue} for {configuration.config.name}, {build}\n"
            + (_how_to_begin(deployed.version) if deployed.use_worker_versioning else "")
        )
        await poll("worker", worker, stop, settings.drain_seconds, configuration.config.holder)


async def poll(name: str, worker: Worker, stop: asyncio.Event, drain_seconds: int, trust: TrustHolder) -> None:
    """Run a worker until it is asked to stop, then drain it; meanwhile take each next version of the trust policy.

    Raises:
        UnavailableError: Temporal ends it for good.
    """
    running = asyncio.create_task(worker.run(), name="worker")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    measured = worker.client.service_client.config.runtime or Runtime.default()
    watching = asyncio.create_task(watched(trust, measured.metric_meter), name="trust")
    await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not running.done():
        sys.stderr.write(f"{name}: draining for up to {drain_seconds} s\n")
        await worker.shutdown()
    stopping.cancel()
    try:
        await running
    except RuntimeError as error:
        raise UnavailableError(f"Temporal ended this worker: {error}") from error
    finally:
        watching.cancel()


async def watched(trust: TrustHolder, meter: MetricMeter) -> None:
    """Take each next version of the trust policy; ``/metrics`` says which, as every process's does."""
    version = meter.create_gauge("trust_policy_version", "Version of the trust policy in force")
    refusals = meter.create_counter("trust_policy_refused_total", "Trust policies that do not follow the one in force")
    version.set(trust.policy.version)
    refusals.add(0)

    async def taken(policy: TrustPolicy) -> None:
        version.set(policy.version)

    async def refused(_: str) -> None:
        refusals.add(1)

    await watch_trust(trust, taken, refused)


def asked_to_stop() -> asyncio.Event:
    """Return what is set by SIGTERM or SIGINT; a second one ends the process at once."""
    stop = asyncio.Event()

    def ask() -> None:
        if stop.is_set():  # asked twice: whoever asks does not want to wait for the drain
            leave(1)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask)
    return stop


def run_process(
    name: str, configure: Callable[[], _Configured], serve: Callable[[_Configured], Coroutine[Any, Any, None]]
) -> int:
    """Run a process of this name; return its exit code."""
    memory.limit_free_memory()
    try:
        configuration = configure()
    except InvalidRequestError as error:
        sys.stderr.write(f"{name}: {error.diagnostics()}\n")
        return 2
    configure_logging(name, configuration.settings.log_level)
    try:
        asyncio.run(serve(configuration))
    except ConstitutionError as error:
        sys.stderr.write(f"{name}: {error.diagnostics()}\n")
        return 1
    except Exception:  # the exit goes through `leave`, whatever happened
        logging.getLogger(name).exception("%s_failed", name)
        return 1
    return 0


if __name__ == "__main__":
    leave(run_process("worker", configure, serve))
