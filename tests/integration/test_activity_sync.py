"""Every target obeys, or is named; asked of real engines and orchestrators, one of which dies."""

import asyncio
import functools
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.failures import classified
from activities.sync import Sync, SyncInput, SyncTask
from adapters.targets import HttpTargets
from constitution.api import LoadResult
from constitution.checksum import checksum_of
from constitution.environment import Target
from constitution.names import Names
from constitution.policy.consumer_api import PolicyStatus
from constitution.trust.attestation import SyncPredicate
from signatures.attestations import verify_attestation
from tests.helpers import eventually
from tests.integration.activity_support import assessor_of, make_config, refused, run
from tests.machine import pace
from tests.world.author import Author
from tests.world.documents import following
from tests.world.files import ENVIRONMENT, EnvironmentFiles
from tests.world.processes import Service


@dataclass
class Targets:
    """Two engines and an orchestrator, and the activities that ask them."""

    engines: tuple[Service, Service]
    orchestrator: Service
    sync: Sync

    def running(self) -> tuple[Service, ...]:
        return (*self.engines, self.orchestrator)


@pytest.fixture
async def targets(
    *,
    author: Author,
    environment_files: EnvironmentFiles,
    constitution_service: Service,
    kafka: dict[str, str],
    names: Names,
    tmp_path: Path,
) -> AsyncIterator[Targets]:
    common = {
        "NAMESPACE": names.namespace,
        "ENVIRONMENT_FILE": str(environment_files.environment_file),
        "CONSTITUTION_SERVICE_URL": constitution_service.url,
        **kafka,
    }
    engines = tuple(
        Service("policy_engine", {**common, "TARGET_ID": f"engine-{n}"}, tmp_path / f"engine-{n}.log").start()
        for n in (1, 2)
    )
    settings = {
        **common,
        "TARGET_ID": "orchestrator-1",
        "POLICY_ENGINE_URL": engines[0].url,
        "CLIENT_KEY_FILE": str(environment_files.directory / "keys" / "target.jwk"),
    }
    orchestrator = Service("orchestrator", settings, tmp_path / "orchestrator.log").start()
    environment_targets = (
        Target(id="engine-1", kind="policy_engine", url=engines[0].url),
        Target(id="engine-2", kind="policy_engine", url=engines[1].url),
        Target(id="orchestrator-1", kind="orchestrator", url=orchestrator.url),
    )
    config = make_config(environment_files, tmp_path, targets=environment_targets)
    client = HttpTargets(environment_files.key("assessor-client"), ENVIRONMENT)
    made = Targets(
        engines=(engines[0], engines[1]),
        orchestrator=orchestrator,
        sync=Sync(targets=client, service=author.assessor, config=config, assessor=assessor_of(author, config)),
    )
    for service in made.running():
        await service.healthy()
    yield made
    for service in made.running():
        service.kill()
    await client.aclose()


async def attested(author: Author, generation: int) -> SyncPredicate:
    """What the assessor signed last about a release."""
    envelopes = await author.worker.attestations(generation=generation)
    said = [verify_attestation(envelope, author.files.trust) for envelope in envelopes]
    return next(one for one in reversed(said) if isinstance(one, SyncPredicate))


async def refusal(sync: Sync, task: SyncTask) -> ApplicationError:
    """How the activity fails that was told this of its release."""
    return await refused(functools.partial(classified(Sync.converge), sync), task)


def ask(result: LoadResult, *, require_all: bool, seconds: float = 20, golden: bool = False) -> SyncTask:
    return SyncTask(
        generation=result.generation,
        checksum=result.checksum,
        rings=("default",),
        deadline_seconds=seconds,
        require_all=require_all,
        golden=golden,
    )


async def test_all_targets_obey_a_release_and_decide_as_the_domain_does(targets: Targets, author: Author) -> None:
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    report = await run(targets.sync.sync_targets, SyncInput(environment=ENVIRONMENT, generation=1))
    assert report.converged == ("engine-1", "engine-2", "orchestrator-1")
    assert (report.lagging, report.unreachable) == ((), ())
    assert await run(targets.sync.sync_targets, SyncInput(environment=ENVIRONMENT, generation=1)) == report
    said = await attested(author, 1)
    assert said.problems(await author.worker.release(1), report.converged, ("engine-1", "engine-2")) == ()
    assert said.golden is not None
    assert said.golden.engines == ("engine-1", "engine-2")
    assert said.golden.vectors > 10
    second = await author.confirmed(author.draft("1.1.0", following(first)), expected_generation=1)
    await run(targets.sync.sync_targets, SyncInput(environment=ENVIRONMENT, generation=second.generation))
    assert (await attested(author, 2)).golden is None, "a later release is watched"
    failure = await refused(
        functools.partial(classified(Sync._golden), targets.sync, fleet=await targets.sync._config.fleet()),
        ask(first, require_all=True, golden=True),
    )
    assert (failure.type, failure.non_retryable) == ("not-converged", True)
    failure = await refusal(targets.sync, ask(first, require_all=True, seconds=1))
    assert failure.type == "not-converged"
    assert [issue["code"] for issue in failure.details[0]["issues"]] == ["lagging"] * 3


async def test_a_dead_target_fails_an_update_and_is_named_by_a_rollback(targets: Targets, author: Author) -> None:
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    targets.engines[1].kill()
    failure = await refusal(targets.sync, ask(first, require_all=True, seconds=3))
    assert (failure.type, failure.non_retryable) == ("not-converged", True)
    issues = failure.details[0]["issues"]
    assert [(issue["code"], issue["path"]) for issue in issues] == [("unreachable", "engine-2")]
    report, tally, _, _ = await run(targets.sync.converge, ask(first, require_all=False, seconds=60))
    assert tally.states["engine-2"].checksum is None
    assert report.unreachable == ("engine-2",)
    assert report.converged == ("engine-1", "orchestrator-1")


async def test_a_frozen_target_is_unreachable_and_a_cancel_stops_the_asking(targets: Targets, author: Author) -> None:
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    targets.engines[1].send(signal.SIGSTOP)
    environment = ActivityEnvironment()
    beats: list[object] = []
    environment.on_heartbeat = lambda *details: beats.append(details)
    task = asyncio.create_task(run(targets.sync.converge, ask(first, require_all=True, seconds=100), environment))

    def only_one_is_missing() -> bool:
        return any("'converged': 2, 'open': 1" in str(beat) and "{'engine-2'" in str(beat) for beat in beats)

    await eventually(only_one_is_missing, timedelta(seconds=20))
    environment.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 3 * pace())


class Failing:
    """A real HTTP server as a target: it says once that it obeys generation 1, fails once, and then says nothing."""

    def __init__(self) -> None:
        self.asked = 0
        self.over = threading.Event()
        target = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                target.asked += 1
                if target.asked > 2:
                    target.over.wait()
                    return
                self.send_response(200 if target.asked == 1 else 503)
                self.send_header("Content-Length", str(len(OBEYS_THE_OLD)))
                self.end_headers()
                self.wfile.write(OBEYS_THE_OLD)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self._thread = threading.Thread(target=self.server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self.over.set()
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


OBEYS_THE_OLD = (
    PolicyStatus(
        target="engine-1",
        ring="default",
        version="1.0.0",
        checksum=checksum_of(b"old"),
        generation=1,
        loaded_at=None,
        last_contact_at=None,
        state="live",
        last_error=None,
    )
    .model_dump_json()
    .encode()
)


@pytest.fixture
def failing() -> Iterator[Failing]:
    target = Failing()
    yield target
    target.close()


async def test_a_target_that_obeys_the_bad_release_is_not_excused_by_one_lost_answer(
    failing: Failing, author: Author, environment_files: EnvironmentFiles, tmp_path: Path
) -> None:
    engine = Target(id="engine-1", kind="policy_engine", url=failing.url)
    client = HttpTargets(environment_files.key("assessor-client"), ENVIRONMENT)
    config = make_config(environment_files, tmp_path, targets=(engine,))
    sync = Sync(targets=client, service=author.assessor, config=config, assessor=assessor_of(author, config))
    x = SyncTask(
        generation=2,
        checksum=checksum_of(b"restored"),
        rings=("default",),
        deadline_seconds=2,
        require_all=False,
    )
    try:
        failure = await refusal(sync, x)
        assert failing.asked == 3, "it answered, failed, and was being asked again"
        assert (failure.type, failure.non_retryable) == ("not-yet", False)
        (issue,) = failure.details[0]["issues"]
        assert (issue["code"], issue["path"]) == ("lagging", "engine-1")
        assert issue["message"].startswith("obeys generation 1, sha256:")
        assert "503" in issue["message"]
        report = (await run(sync.converge, x)).report
        assert report.unreachable == ("engine-1",), (
            "it has not answered since: a rollback does not wait for it for ever"
        )
    finally:
        await client.aclose()
