"""A worker that only watches, as a process of its own, so that a test can kill it in mid-watch.

``python tests/integration/watch_worker.py TASK_QUEUE ENVIRONMENT_FILE SERVICE_URL PROMETHEUS_URL CLIENT_KEY``
"""

import asyncio
import os
import sys
from datetime import timedelta
from pathlib import Path

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig
from temporalio.worker import Worker

with workflow.unsafe.imports_passed_through():
    from activities.watch.watch import Watch, WatchReport, WatchTask
    from workflows import policies

WATCH = "watch_metric"
HEARTBEAT = timedelta(seconds=3)  # a killed worker is missed soon


@workflow.defn
class WatchOnly:
    """One watch, that is taken over soon after its worker was killed."""

    @workflow.run
    async def run(self, x: WatchTask) -> WatchReport:
        report: WatchReport = await workflow.execute_activity(
            WATCH,
            x,
            result_type=WatchReport,
            start_to_close_timeout=timedelta(minutes=5),
            heartbeat_timeout=HEARTBEAT,
            retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=200), maximum_attempts=10),
        )
        return report


@workflow.defn
class WatchLong:
    """One watch, as ConstitutionUpdate calls it."""

    @workflow.run
    async def run(self, x: WatchTask) -> WatchReport:
        policy = policies.watch(x.until_seconds)
        report: WatchReport = await workflow.execute_activity(
            WATCH,
            x,
            result_type=WatchReport,
            start_to_close_timeout=policy.start_to_close,
            heartbeat_timeout=policy.heartbeat,
            retry_policy=policy.retry,
        )
        return report


async def main(queue: str, environment: Path, service_url: str, prometheus_url: str, key: Path) -> None:
    """Work until killed."""
    from activities.attesting import Attester
    from adapters.prometheus import PrometheusMetrics
    from adapters.worker_config import load_worker_config
    from constitution_client.service import ConstitutionServiceClient
    from signatures.tokens import ClientKey

    config = load_worker_config(environment, scratch=environment.parent / "scratch", links={})
    client = await Client.connect(
        os.environ["TEMPORAL_ADDRESS"],
        namespace=os.environ["TEMPORAL_NAMESPACE"],
        data_converter=pydantic_data_converter,
        runtime=Runtime(
            telemetry=TelemetryConfig(metrics=PrometheusConfig(bind_address=os.environ["METRICS_ADDRESS"]))
        ),
    )
    name = config.name
    async with ConstitutionServiceClient(service_url, ClientKey.load(key), name) as service:
        # What is watched here is no release: nothing is attested.
        assessor = Attester(service=service, config=config, key=ClientKey.generate("assessor"))
        metrics = PrometheusMetrics(prometheus_url)
        watch = Watch(metrics=metrics, service=service, config=config, assessor=assessor)

        @activity.defn(name=WATCH)
        async def watch_metric(x: WatchTask) -> WatchReport:
            return await watch.watch(x)

        await Worker(
            client,
            task_queue=queue,
            workflows=[WatchOnly, WatchLong],
            activities=[watch_metric],
            max_heartbeat_throttle_interval=timedelta(seconds=1),
            default_heartbeat_throttle_interval=timedelta(seconds=1),
        ).run()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4], Path(sys.argv[5])))
