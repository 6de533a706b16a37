"""The watch when its surroundings fail: a real Prometheus, a real exporter process, and faults made on purpose.

Each scenario is an engine of its own behind the same exporter; all are watched at the same time, after one baseline.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

import httpx
import pytest
from temporalio.testing import ActivityEnvironment

from activities.watch.query import selector
from activities.watch.watch import Watch, WatchReport, WatchTask
from adapters.prometheus import PrometheusMetrics
from constitution.environment import Strategy, Target
from constitution.release import Verdict
from constitution_client.watch_history import evidence_of
from tests.helpers import eventually
from tests.integration.activity_support import assessor_of, make_config, now, run
from tests.ports import free_port
from tests.resources import Prometheus
from tests.world.author import Author
from tests.world.files import CHECKOUT, ENVIRONMENT, EnvironmentFiles
from tests.world.processes import Process
from tests.world.wire import Fault, Wire

if TYPE_CHECKING:
    from temporalio.client import Client

BASELINE = 32
CALM = {"allow": 160.0, "deny": 40.0, "resets": 0, "nan": False, "down": False}
SPIKE = CALM | {"deny": 160.0}
WATCH = 24.0


@dataclass
class Fleet:
    """Engines behind one exporter process, each with what it counts in a file."""

    directory: Path
    address: str
    prometheus: Prometheus
    names: dict[str, str] = field(default_factory=dict)

    def add(self, scenario: str, *jobs: str) -> None:
        """Begin calm traffic on an engine of one's own, scraped once a second by each job."""
        name = self.names[scenario] = f"e{uuid4().hex[:10]}"
        self.tell(scenario)
        for job in jobs or ("policy-engine",):
            self.prometheus.scrape(self.address, job=job, __metrics_path__=f"/{name}", target=name)

    def tell(self, scenario: str, **changes: Any) -> None:
        """Change what an engine counts."""
        file = self.directory / f"{self.names[scenario]}.json"
        told = (json.loads(file.read_text()) if file.exists() else CALM) | changes
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(told))
        partial.replace(file)


@pytest.fixture
async def fleet(prometheus: Prometheus, tmp_path: Path) -> AsyncIterator[Fleet]:
    directory = tmp_path / "engines"
    directory.mkdir()
    port = free_port()
    exporter = Process(
        [str(CHECKOUT / "tests" / "integration" / "exporter.py"), str(port), str(directory)], {}, tmp_path / "log"
    )
    exporter.start()
    yield Fleet(directory, f"127.0.0.1:{port}", prometheus)
    exporter.kill()


def ask(published: datetime, seconds: float = WATCH, measure: Literal["share", "rate"] = "share") -> WatchTask:
    return WatchTask(
        environment=ENVIRONMENT,
        update_id=str(uuid4()),
        generation=1,
        published_at=published,
        strategy=Strategy(
            watch_seconds=int(seconds),
            baseline_seconds=30,
            scrape_seconds=1,
            measure=measure,
            min_rate=0.01,
            direction="up" if measure == "share" else "both",
        ),
        until_seconds=seconds,
    )


@dataclass
class Watchers:
    """A watch activity for each scenario's engine alone, through a Prometheus address of one's choice."""

    author: Author
    files: EnvironmentFiles
    scratch: Path
    fleet: Fleet
    opened: list[PrometheusMetrics] = field(default_factory=list)

    def of(self, scenario: str, url: str) -> Watch:
        metrics = PrometheusMetrics(url)
        self.opened.append(metrics)
        targets = (Target(id=self.fleet.names[scenario], kind="policy_engine", url="http://127.0.0.1:9"),)
        config = make_config(self.files, self.scratch, targets=targets)
        assessor = assessor_of(self.author, config)
        return Watch(metrics=metrics, service=self.author.assessor, config=config, assessor=assessor)

    def start(self, scenario: str, url: str, x: WatchTask) -> "asyncio.Task[WatchReport]":
        return asyncio.create_task(run(self.of(scenario, url).watch, x))

    async def scraped(self, scenario: str, url: str, seconds: int) -> None:
        """Wait until that many samples of the scenario's engine are there."""
        metrics = PrometheusMetrics(url)
        self.opened.append(metrics)
        query = f"{selector([], [self.fleet.names[scenario]])}[5m]"

        async def enough() -> bool:
            series = await metrics.matrix(query, now())
            return bool(series) and max(len(s["values"]) for s in series) >= seconds

        await eventually(enough, timedelta(seconds=4 * seconds + 30))


@pytest.fixture
async def watchers(
    author: Author, environment_files: EnvironmentFiles, tmp_path: Path, fleet: Fleet
) -> AsyncIterator[Watchers]:
    made = Watchers(author, environment_files, tmp_path, fleet)
    yield made
    for metrics in made.opened:
        metrics.close()


async def until(moment: datetime) -> None:
    await eventually(lambda: now() >= moment, timedelta(seconds=60))


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_faults_of_the_data_make_no_alarm_and_hide_none(
    fleet: Fleet, watchers: Watchers, prometheus: Prometheus
) -> None:
    scenarios = ("calm", "reset", "nan", "vanishes", "fades", "spike", "spike-reset", "early", "late", "late-spike")
    for scenario in scenarios:
        fleet.add(scenario)
    fleet.add("twice", "policy-engine", "policy-engine-again")
    fleet.add("ingress")
    ingress = Wire(prometheus.url)
    await watchers.scraped("calm", prometheus.url, BASELINE + 6)
    published = now()
    skew = timedelta(seconds=5)
    moments = {"early": published - skew, "late": published + skew, "late-spike": published + skew}
    faults: dict[str, dict[str, Any]] = {
        "vanishes": {"down": True},
        "nan": {"nan": True},
        "spike": SPIKE,
        "spike-reset": SPIKE,
        "late-spike": SPIKE,
    }
    for scenario, changes in faults.items():
        fleet.tell(scenario, **changes)
    tasks = {
        name: watchers.start(name, prometheus.url, ask(moments.get(name, published))) for name in (*scenarios, "twice")
    }
    tasks["reset, by rate"] = watchers.start("reset", prometheus.url, ask(published, measure="rate"))
    tasks["ingress"] = watchers.start("ingress", ingress.url, ask(published))
    await until(published + timedelta(seconds=3))
    ingress.be(Fault(status=404, body=b"default backend - 404\n"))
    fleet.tell("reset", resets=1)
    fleet.tell("spike-reset", resets=1)
    await until(published + timedelta(seconds=8))
    fleet.tell("fades", down=True)
    fleet.tell("reset", resets=2)
    assert ingress.met > 0
    ingress.repair()
    reports = dict(zip(tasks, await asyncio.gather(*tasks.values()), strict=True))
    said = {name: (report.verdict, report.detail) for name, report in reports.items()}
    for name in ("calm", "reset", "reset, by rate", "nan", "twice", "early", "late", "ingress"):
        assert reports[name].verdict is Verdict.OK, (name, said)
    for name in ("vanishes", "fades"):
        assert reports[name].verdict is Verdict.NO_DATA, (name, said)
    for name in ("spike", "spike-reset"):
        assert reports[name].verdict is Verdict.ANOMALY, (name, said)
        assert reports[name].leading == "deny_share"
    # By its clock the spike began five seconds before publish, and may be seen there already: either way it is no ok.
    late = reports["late-spike"]
    rising = late.verdict is Verdict.CANNOT_TELL and "already rising" in late.detail
    assert late.verdict is Verdict.ANOMALY or rising, said
    assert reports["spike"].decided_at < published + timedelta(seconds=WATCH)


@pytest.mark.timeout(400)
@pytest.mark.slow
async def test_a_prometheus_that_fails_for_a_while_hides_nothing_and_one_that_stays_silent_is_no_ok(
    fleet: Fleet, watchers: Watchers, prometheus: Prometheus
) -> None:
    scenarios = ("calm", "spike", "slow", "garbage", "silent", "absurd")
    for scenario in scenarios:
        fleet.add(scenario)
    await watchers.scraped("calm", prometheus.url, BASELINE + 2)
    proxies = {scenario: Wire(prometheus.url) for scenario in scenarios}
    published = now()
    tasks = {name: watchers.start(name, proxies[name].url, ask(published)) for name in scenarios}
    await until(published + timedelta(seconds=2))
    for name in ("calm", "spike", "silent"):
        proxies[name].cut()
    proxies["slow"].be(Fault(delay=3.0))
    proxies["garbage"].be(Fault(body=b"<html>maintenance</html>", trickle=True))
    fleet.tell("absurd", absurd=True)
    fleet.tell("spike", **SPIKE)
    await until(published + timedelta(seconds=10))
    for scenario in ("calm", "spike", "slow", "garbage"):
        assert proxies[scenario].met > 0, scenario
        proxies[scenario].repair()
    reports = dict(zip(tasks, await asyncio.gather(*tasks.values()), strict=True))
    said = {name: (report.verdict, report.detail) for name, report in reports.items()}
    assert reports["calm"].verdict is Verdict.OK, said
    assert reports["slow"].verdict is Verdict.OK, said
    assert reports["garbage"].verdict is Verdict.OK, said
    assert reports["spike"].verdict is Verdict.ANOMALY, said
    # Seen late, but said of the scrape that showed it: while nobody could ask.
    assert reports["spike"].decided_at < published + timedelta(seconds=12), said
    assert reports["silent"].verdict is Verdict.NO_DATA, said
    assert reports["absurd"].verdict is Verdict.NO_DATA, said
    assert "1e+308 is no count of events" in reports["absurd"].detail, said


@pytest.mark.timeout(400)
@pytest.mark.slow
async def test_a_worker_killed_in_mid_watch_is_followed_by_one_with_the_same_verdict(
    *,
    fleet: Fleet,
    watchers: Watchers,
    prometheus: Prometheus,
    temporal_client: "Client",
    temporal_settings: dict[str, str],
    namespace: str,
    tmp_path: Path,
) -> None:
    fleet.add("spike")
    engine = fleet.names["spike"]
    environment = tmp_path / "watched.toml"
    files = watchers.files
    environment.write_text(
        f'schema_version = 1\nenvironment = "{ENVIRONMENT}"\ngate = "{CHECKOUT / "tests"}"\n'
        f'trust = "{files.directory / "trust" / "trust.toml"}"\n'
        f'[[targets]]\nid = "{engine}"\nkind = "policy_engine"\nurl = "http://127.0.0.1:9"\n'
    )
    arguments = [
        str(CHECKOUT / "tests" / "integration" / "watch_worker.py"),
        namespace,
        str(environment),
        str(watchers.author.http.base_url),
        prometheus.url,
        str(files.directory / "keys" / "assessor-client.jwk"),
    ]
    names = ("TEMPORAL_ADDRESS", "TEMPORAL_NAMESPACE")
    settings = {name: temporal_settings[name] for name in names} | {"PYTHONPATH": str(CHECKOUT)}
    settings["METRICS_ADDRESS"] = metrics = f"127.0.0.1:{free_port()}"
    worker = Process(arguments, settings, tmp_path / "worker.log").start()
    try:
        await watchers.scraped("spike", prometheus.url, BASELINE)
        x = ask(now(), seconds=60)
        handle = await temporal_client.start_workflow(
            "WatchOnly", x, id=f"{namespace}-watch", task_queue=namespace, result_type=WatchReport
        )

        async def beats() -> int:
            pending = (await handle.describe()).raw_description.pending_activities
            payloads = pending[0].heartbeat_details.payloads if pending else []
            return int(json.loads(payloads[0].data)["ticks"]) if payloads else 0

        await eventually(beats, timedelta(seconds=60))
        worker.kill()
        fleet.tell("spike", **SPIKE)
        worker.start()
        report = await asyncio.wait_for(handle.result(), 120)
        async with httpx.AsyncClient(trust_env=False) as http:
            shown = (await http.get(f"http://{metrics}/metrics")).text
    finally:
        worker.kill()
    alone = await ActivityEnvironment().run(watchers.of("spike", prometheus.url).watch, x)
    assert report.verdict is Verdict.ANOMALY, report.detail
    assert (report.verdict, report.decided_at, report.log_e, report.samples) == (
        alone.verdict,
        alone.decided_at,
        alone.log_e,
        alone.samples,
    )
    assert re.search(r'^constitution_watch_verdict\{[^}]*verdict="anomaly"[^}]*\} 1$', shown, re.MULTILINE), shown
    limit = re.search(r"^constitution_watch_limit\{[^}]*\} ([0-9.]+)$", shown, re.MULTILINE)
    evidence = re.search(r'^constitution_watch_log_e\{[^}]*"deny_share"[^}]*\} ([0-9.]+)$', shown, re.MULTILINE)
    assert limit is not None
    assert evidence is not None
    assert float(evidence[1]) >= float(limit[1]) > 4.6
    assert report.evidence is not None
    assert await evidence_of(handle.id, settings) == report.evidence
    history = [event async for event in handle.fetch_history_events()]
    started = [e.activity_task_started_event_attributes for e in history if e.event_type == STARTED]
    assert started[-1].attempt > 1  # the first attempt did not live to the end


STARTED = 11  # EVENT_TYPE_ACTIVITY_TASK_STARTED
