"""The expected change, on a real engine that follows a real constitution-service: what it tells, and to whom."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from activities.expected_change import ExpectedChange, PredictInput
from adapters.environment_config import load_environment_config
from adapters.targets import HttpTargets
from constitution.checksum import checksum_of
from constitution.environment import Target
from constitution.errors import NotFoundError, UnavailableError, UntrustedError
from constitution.policy.evaluation import Decision
from constitution.watch.prediction import PairCounts, Prediction
from services.policy_engine.candidate import Candidates
from tests.helpers import eventually
from tests.integration.activity_support import assessor_of, make_config, refused, run
from tests.world.author import Author
from tests.world.documents import following
from tests.world.files import ENVIRONMENT, EnvironmentFiles
from tests.world.processes import Service
from tests.world.wire import Fault, Wire

WIRES, EXPORTS, READS = 60, 90, 250


def wider(author: Author, version: str, previous: object) -> bytes:
    """A draft that forbids exports, too."""
    rule = {
        "id": "no-export",
        "principle": "care",
        "effect": "deny",
        "when": "action == 'export'",
        "severity": "medium",
        "message": "exports are forbidden",
    }
    draft = json.loads(author.draft(version, previous))  # type: ignore[arg-type]
    return json.dumps({**draft, "rules": [*draft["rules"], rule]}, indent=1).encode()


@pytest.fixture
async def engine(
    author: Author, environment_files: EnvironmentFiles, kafka: dict[str, str], namespace: str, tmp_path: Path
) -> AsyncIterator[Service]:
    settings = {
        "TARGET_ID": "engine-1",
        "NAMESPACE": namespace,
        "ENVIRONMENT_FILE": str(environment_files.environment_file),
        "CONSTITUTION_SERVICE_URL": str(author.http.base_url),
        "POLL_SECONDS": "0.2",
        "RECORDING_DIRECTORY": str(tmp_path),
        **kafka,
    }
    engine = Service("policy_engine", settings, tmp_path / "engine.log").start()
    await engine.healthy()
    yield engine
    engine.kill()


@pytest.fixture
async def targets(environment_files: EnvironmentFiles) -> AsyncIterator[HttpTargets]:
    http = HttpTargets(environment_files.key("assessor-client"), ENVIRONMENT)
    yield http
    await http.aclose()


async def evaluated(engine: Service, files: EnvironmentFiles) -> None:
    """Ask the engine as agents do; and as the runbook does, which is no traffic."""
    asked = ["wire"] * WIRES + ["export"] * EXPORTS + ["read"] * READS
    probe = files.bearer("probe", "worker")
    async with httpx.AsyncClient(trust_env=False, timeout=10) as http:
        for action in asked:
            body = {"tenant": "global", "action": action, "user": "elsa", "time": datetime.now(UTC).isoformat()}
            assert (await http.post(f"{engine.url}/v1/evaluate", json=body)).status_code == 200
        for _ in range(20):
            body = {"tenant": "runbook-probe", "action": "export", "time": datetime.now(UTC).isoformat()}
            assert (await http.post(f"{engine.url}/v1/evaluate", json=body, headers=probe)).status_code == 200


async def test_an_engine_tells_what_a_candidate_would_change_and_the_board_gets_to_see_it(
    author: Author, engine: Service, targets: HttpTargets, environment_files: EnvironmentFiles, tmp_path: Path
) -> None:
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)

    async def obeys() -> bool:
        return (await engine.policy()).generation == 1

    await eventually(obeys)
    await evaluated(engine, environment_files)
    assert await engine.metric("policy_engine_recorded_requests") == WIRES + EXPORTS + READS
    target = Target(id="engine-1", kind="policy_engine", url=engine.url)
    candidate = wider(author, "1.1.0", following(first))
    checksum = await author.push(candidate)
    told = await targets.predict(target, checksum)
    assert (told.current, told.candidate) == (first.checksum, checksum)
    assert told.counts.requests == WIRES + EXPORTS + READS
    assert told.counts.current[Decision.DENY] == WIRES
    assert told.counts.candidate[Decision.DENY] == WIRES + EXPORTS
    assert told.counts.quantities["deny_share"] == PairCounts(current=WIRES, candidate=WIRES + EXPORTS, both=WIRES)
    assert told.counts.quantities["severe_share"] == PairCounts(current=WIRES, candidate=WIRES, both=WIRES)
    assert "elsa" not in told.model_dump_json()

    silent = Target(id="engine-2", kind="policy_engine", url="http://127.0.0.1:9")
    config = make_config(environment_files, tmp_path, targets=(target, silent))
    activity = ExpectedChange(
        service=author.assessor, targets=targets, config=config, assessor=assessor_of(author, config)
    )
    change_request = await author.ask(checksum)
    gate = await author.evidence(candidate, change_request)
    result = await run(activity.predict_shift, PredictInput(environment=ENVIRONMENT, evidence=gate))
    record = await author.worker.evidence(result.evidence)
    assert result.evidence != gate
    assert (record.checksum, record.change_request, len(record.suites)) == (checksum, change_request, 2)
    prediction = Prediction.model_validate(record.prediction)
    assert prediction.enough
    assert prediction.engines == ("engine-1",)
    assert prediction.silent[0].startswith("engine-2: engine-2 at 127.0.0.1:9 did not answer")
    expected = prediction.expected("deny_share")
    assert 2.5 < expected.up < 4.5
    assert prediction.expected("evaluations").up == 1.0
    assert any("deny_share: 15.0% now, 37.5% with the candidate" in line for line in result.lines)

    assert len(await author.worker.attestations(evidence=result.evidence)) == 1

    unknown = wider(author, "1.2.0", following(first))
    other = await author.evidence(unknown, change_request)
    nothing = await run(activity.predict_shift, PredictInput(environment=ENVIRONMENT, evidence=other))
    assert nothing.lines[0].startswith("not predicted: 0 recorded requests")
    assert any("not in the artifact store" in line for line in nothing.lines)

    invented = await author.assessor.put_evidence(record.model_copy(update={"prediction": None, "diff": ("x",)}))
    failure = await refused(activity.predict_shift, PredictInput(environment=ENVIRONMENT, evidence=invented))
    assert "no assessor has signed" in failure.message


async def test_only_the_probe_scope_and_a_signed_candidate_are_answered(
    author: Author, engine: Service, targets: HttpTargets, environment_files: EnvironmentFiles
) -> None:
    target = Target(id="engine-1", kind="policy_engine", url=engine.url)
    await engine.ready()
    with pytest.raises(UnavailableError, match="no constitution is in force"):
        await targets.predict(target, checksum_of(b"anything"))
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)

    async def obeys() -> bool:
        return (await engine.policy()).generation == 1

    await eventually(obeys)
    body = {"checksum": first.checksum}
    async with httpx.AsyncClient(trust_env=False, timeout=10) as http:
        url = f"{engine.url}/v1/policy/predict"
        assert (await http.post(url, json=body)).status_code == 403
        refresher = environment_files.bearer("policy:refresh", "target")
        assert (await http.post(url, json=body, headers=refresher)).status_code == 403
        probe = environment_files.bearer("probe", "worker")
        assert (await http.post(url, json={"checksum": "sha256:no"}, headers=probe)).status_code in {400, 422}
        assert (await http.post(url, json={"checksum": checksum_of(b"x")}, headers=probe)).status_code == 404
        same = await http.post(url, json=body, headers=probe)
    assert same.status_code == 200
    assert same.json()["counts"]["requests"] == 0


async def test_a_store_that_lies_about_a_candidate_is_not_believed(environment_files: EnvironmentFiles) -> None:
    liar = Wire()
    liar.be(Fault(body=b'{"signatures": []}'))
    try:
        async with httpx.AsyncClient(trust_env=False) as client:
            candidates = Candidates(
                client, base_url=liar.url, config=load_environment_config(environment_files.environment_file)
            )
            with pytest.raises(UntrustedError, match="other bytes"):
                await candidates.compiled(checksum_of(b"something else"))
            with pytest.raises(UntrustedError, match="signed by nobody"):
                await candidates.compiled(checksum_of(b'{"signatures": []}'))
            liar.be(Fault(body=b"{}" * 600_000))
            with pytest.raises(UntrustedError, match="larger"):
                await candidates.compiled(checksum_of(b"{}"))
            liar.be(Fault(status=404, body=b"gone"))
            with pytest.raises(NotFoundError, match="artifact store"):
                await candidates.compiled(checksum_of(b"{}"))
            liar.be(Fault(status=500, body=b"broken"))
            with pytest.raises(UnavailableError, match="500"):
                await candidates.compiled(checksum_of(b"{}"))
    finally:
        liar.close()
