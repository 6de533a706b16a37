"""The assessor: a Temporal worker that runs gate, sync and watch, and signs what it saw.

It holds its key, a token key that may store evidence and ask targets, and nothing else: it publishes nothing, confirms
nothing, and writes to nobody. Whatever it is asked, it only ever says what it saw (activities/attesting.py). Run it
with ``python assessor.py``; settings are environment variables (``adapters/settings.py``), exit codes the worker's.
"""

import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from temporalio.worker import Worker

from activities.attesting import Attester
from activities.callers import OnlyOurRuns
from activities.expected_change import ExpectedChange
from activities.gate import Gate
from activities.sync import Sync
from activities.watch.watch import Watch
from adapters.process_settings import read_settings
from adapters.prometheus import PrometheusMetrics
from adapters.regression_gate import run_gate
from adapters.runs import TemporalRuns
from adapters.settings import AssessorSettings
from adapters.targets import HttpTargets
from adapters.worker_config import WorkerConfig, load_worker_config
from constitution.errors import Issue
from constitution.names import Names
from constitution_client.exit import leave
from constitution_client.service import ConstitutionServiceClient
from signatures.tokens import ClientKey
from worker import (
    ACTIVITIES_AT_ONCE,
    THROTTLE,
    asked_to_stop,
    collected,
    connect,
    methods_of,
    poll,
    read_temporal,
    refusal,
    run_process,
    workflow_names,
)

NAME = "assessor"


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """Everything that was read before anything was connected."""

    settings: AssessorSettings
    config: WorkerConfig
    client_key: ClientKey
    assessor_key: ClientKey
    temporal: dict[str, Any]


def configure() -> Configuration:
    """Read settings and the files that they name.

    Raises:
        InvalidRequestError: with every problem found; also of a key that the trust policy does not know.
    """
    problems: list[Issue] = []
    temporal = collected(read_temporal, problems, "TEMPORAL_ADDRESS")
    settings = collected(lambda: read_settings(AssessorSettings), problems, "settings")
    if settings is None:
        raise refusal(NAME, problems)
    config = collected(
        lambda: load_worker_config(settings.environment_file, scratch=settings.evidence_directory, links={}),
        problems,
        "ENVIRONMENT_FILE",
    )
    client_key = collected(lambda: ClientKey.load(settings.client_key_file), problems, "CLIENT_KEY_FILE")
    key = collected(lambda: ClientKey.load(settings.assessor_key_file), problems, "ASSESSOR_KEY_FILE")
    if config is not None and key is not None:
        pinned = config.trust.assessor(key.id)
        if pinned is None or pinned.public_key != key.public_text():
            said = f"the trust policy does not know this key as that of the assessor {key.id}: nothing it signs counts"
            problems.append(Issue(code="unknown-key", path="ASSESSOR_KEY_FILE", message=said))
    if config is None or client_key is None or key is None or temporal is None or problems:
        raise refusal(NAME, problems)
    return Configuration(settings=settings, config=config, client_key=client_key, assessor_key=key, temporal=temporal)


@asynccontextmanager
async def activities(configuration: Configuration) -> AsyncIterator[list[Callable[..., Any]]]:
    """Build every adapter once, hand them to the activities, and close them in reverse."""
    settings, config = configuration.settings, configuration.config
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(
            ConstitutionServiceClient(settings.constitution_service_url, configuration.client_key, config.name)
        )
        targets = HttpTargets(configuration.client_key, config.name)
        stack.push_async_callback(targets.aclose)
        metrics = PrometheusMetrics(
            settings.prometheus_url,
            token_file=settings.prometheus_token_file,
            certificate=settings.prometheus_certificate_file,
            certificate_key=settings.prometheus_certificate_key_file,
        )
        stack.callback(metrics.close)
        assessor = Attester(service=service, config=config, key=configuration.assessor_key)
        holders: tuple[object, ...] = (
            Gate(service=service, config=config, gate=run_gate, assessor=assessor),
            ExpectedChange(service=service, targets=targets, config=config, assessor=assessor),
            Sync(targets=targets, service=service, config=config, assessor=assessor),
            Watch(metrics=metrics, service=service, config=config, assessor=assessor),
        )
        yield [method for holder in holders for method in methods_of(holder)]


async def serve(configuration: Configuration) -> None:
    """Poll until SIGTERM or SIGINT, then drain.

    Raises:
        UnavailableError: Temporal is not there at the start, or ends this worker for good.
    """
    stop = asked_to_stop()
    settings, names = configuration.settings, Names(configuration.settings.namespace)
    identity = f"{socket.gethostname()}/{os.getpid()}#assessor {configuration.assessor_key.id}"
    client = await connect(settings, configuration.temporal, identity)
    ours = OnlyOurRuns(runs=TemporalRuns(client), task_queue=names.task_queue(), workflows=workflow_names())
    async with activities(configuration) as methods:
        worker = Worker(
            client,
            task_queue=names.assessor_queue(),
            activities=methods,
            interceptors=[ours],
            max_concurrent_activities=ACTIVITIES_AT_ONCE,
            max_heartbeat_throttle_interval=THROTTLE,
            default_heartbeat_throttle_interval=THROTTLE,
            graceful_shutdown_timeout=timedelta(seconds=settings.drain_seconds),
        )
        sys.stderr.write(f"{NAME}: polling {names.assessor_queue()} for {configuration.config.name}\n")
        await poll(NAME, worker, stop, settings.drain_seconds, configuration.config.holder)


if __name__ == "__main__":
    leave(run_process(NAME, configure, serve))
