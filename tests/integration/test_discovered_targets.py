"""A list that others write names the targets: it is asked whole, proved by number and digest, and never short."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from activities.sync import Sync, SyncInput
from adapters.targets import HttpTargets
from constitution.checksum import checksum_of
from constitution.errors import EvidenceError
from constitution.names import Names
from constitution.release import Standing
from constitution.trust.attestation import GoldenReport, SyncPredicate
from constitution.trust.fleet import Discovered, FleetReport, TargetReport, TargetSet, listing
from signatures.attestations import verify_attestation
from tests.integration.activity_support import assessor_of, make_config, refused, run
from tests.world.author import Author
from tests.world.files import ENVIRONMENT, EnvironmentFiles
from tests.world.processes import Service

SOURCE = """
[[target_sources]]
id = "pods"
source = "file"
at = "pods.json"
kind = "policy_engine"
min_targets = 2
"""


@pytest.fixture
def environment_files(tmp_path: Path) -> EnvironmentFiles:
    files = EnvironmentFiles.make(tmp_path / "environment")
    files.environment_file.write_text(files.environment_file.read_text() + SOURCE)
    return files


@pytest.fixture
async def engines(
    *,
    environment_files: EnvironmentFiles,
    constitution_service: Service,
    kafka: dict[str, str],
    names: Names,
    tmp_path: Path,
) -> AsyncIterator[list[Service]]:
    settings = {
        "NAMESPACE": names.namespace,
        "ENVIRONMENT_FILE": str(environment_files.environment_file),
        "CONSTITUTION_SERVICE_URL": constitution_service.url,
        **kafka,
    }
    started = [
        Service("policy_engine", {**settings, "TARGET_ID": name}, tmp_path / f"{name}.log").start()
        for name in ("pod-a", "pod-b")
    ]
    for engine in started:
        await engine.healthy()
    yield started
    for engine in started:
        engine.kill()


def listed(files: EnvironmentFiles, engines: list[Service]) -> None:
    """Write the list as Prometheus' file_sd has it."""
    groups = [
        {"targets": [engine.url.removeprefix("http://")], "labels": {"target": name}}
        for name, engine in zip(("pod-a", "pod-b"), engines, strict=False)
    ]
    (files.directory / "pods.json").write_text(json.dumps(groups))


async def test_a_release_is_confirmed_only_where_as_many_obey_as_the_list_must_name(
    *, author: Author, engines: list[Service], environment_files: EnvironmentFiles, tmp_path: Path
) -> None:
    result, lease = await author.publish(author.draft("1.0.0"), expected_generation=0)
    client = HttpTargets(environment_files.key("assessor-client"), ENVIRONMENT)
    config = make_config(environment_files, tmp_path)
    sync = Sync(targets=client, service=author.assessor, config=config, assessor=assessor_of(author, config))
    asked = SyncInput(environment=ENVIRONMENT, generation=1)
    try:
        for few in ([], engines[:1]):
            listed(environment_files, few)
            failure = await refused(sync.sync_targets, asked)
            assert (failure.type, failure.non_retryable) == ("unavailable", False), "an empty list is no convergence"
        whose = TargetReport(id="pod-a", state="converged", generation=1, checksum=result.checksum)
        short = Discovered(source="pods", fleet=FleetReport.of_listing(listing((whose,))), golden=1)
        golden = GoldenReport(engines=(), vectors=1)
        for said in ((), (short,)):
            await author.attest(await author.synced(1, golden=golden, discovered=said))
            with pytest.raises(EvidenceError, match="no assessor has signed that every target obeys"):
                await author.stand(1, Standing.CONFIRMED, lease, f"try-{len(said)}", attested=False)
        listed(environment_files, engines)
        report = await run(sync.sync_targets, asked)
    finally:
        await client.aclose()
    assert report.converged == ("pod-a", "pod-b")
    envelope = (await author.worker.attestations(generation=1))[-1]
    seen = verify_attestation(envelope, author.files.trust)
    assert isinstance(seen, SyncPredicate)
    (pods,) = seen.discovered
    assert (pods.source, pods.golden, pods.fleet.asked) == ("pods", 2, TargetSet.of(("pod-a", "pod-b")))
    names = await author.worker.blob(pods.fleet.listing)
    assert names == b"pod-a\tconverged\t\t\npod-b\tconverged\t\t\n"
    assert checksum_of(names) == pods.fleet.listing
    after = await author.stand(1, Standing.CONFIRMED, lease, attested=False)
    assert after.standing is Standing.CONFIRMED
