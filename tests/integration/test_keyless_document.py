"""A document that somebody signed at a private Sigstore goes live and is obeyed; its certificate ended long ago."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from constitution.errors import UntrustedError
from constitution_client.main import run
from signatures.current import verify_current
from tests.helpers import eventually
from tests.recorded_bundles import Recorded
from tests.world.author import Author
from tests.world.environment import ServiceEnvironment
from tests.world.files import ENVIRONMENT, EnvironmentFiles
from tests.world.processes import Service

RECORDED = Recorded()


@pytest.fixture
def environment_files(tmp_path: Path) -> EnvironmentFiles:
    """Nils signs documents, keylessly alone; the others have keys."""
    directory = tmp_path / "environment"
    mara = RECORDED.identity("mara")
    people = ["--maintainer", "nils", "--author", "mara", "--board", "alva,bruno", "--operator", "olga"]
    keyless = ["--sigstore", f"nils={mara.identity},{mara.issuer}"]
    root = ["--sigstore-root", str(RECORDED.folder / "trusted_root.json")]
    assert run(["init", "--directory", str(directory), "--environment", ENVIRONMENT, *people, *keyless, *root]) == 0
    return EnvironmentFiles.configured(directory)


@pytest.fixture
def engine(service_environment: ServiceEnvironment, tmp_path: Path) -> Iterator[Service]:
    """A policy engine that follows, with the same trust policy."""
    settings = service_environment.consumer_settings("policy-engine-1", POLL_SECONDS="0.2")
    engine = Service("policy_engine", settings, tmp_path / "engine.log").start()
    yield engine
    engine.kill()


async def test_a_document_signed_at_a_private_sigstore_goes_live_and_is_obeyed(author: Author, engine: Service) -> None:
    for somebody_else in ("olga", "ci", "mara.dsse"):
        with pytest.raises(UntrustedError, match="no signature of this document counts"):
            await author.worker.push(RECORDED.document, [RECORDED.bundle(somebody_else)])
    artifact = await author.worker.push(RECORDED.document, [RECORDED.bundle("mara")])
    assert artifact.signers == ("nils",)
    request = await author.prepared(RECORDED.document, pushed=True)
    lease = await author.lease(request.update_id)
    live = await author.load(request.model_copy(update={"fencing_token": lease.fencing_token}))
    current = await author.current()
    assert current is not None
    verify_current(current, trust=author.files.trust, environment=ENVIRONMENT, ring="default")

    async def obeyed() -> bool:
        return (await engine.policy()).generation == live.generation

    await eventually(obeyed)
