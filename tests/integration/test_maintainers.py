"""Documents that take several maintainers, who sign by OpenPGP, keylessly, or both; the policy is made by `init`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from constitution.checksum import checksum_of
from constitution.errors import UntrustedError
from constitution.release import Kind, Previous
from constitution_client.main import run
from signatures.current import verify_current
from signatures.openpgp import generate_key
from tests.helpers import eventually
from tests.keyless import ISSUER, KeylessAuthority
from tests.world.author import Author
from tests.world.documents import following
from tests.world.environment import ServiceEnvironment
from tests.world.files import ENVIRONMENT, EnvironmentFiles
from tests.world.processes import Service


@dataclass(frozen=True)
class Maintainers:
    """Mara signs with a key and keylessly, Marc with a key, Nils keylessly alone."""

    author: Author
    authority: KeylessAuthority

    async def push(self, document: bytes, person: str, *, keyless: bool = False, issuer: str = ISSUER) -> list[str]:
        """Push a document with one signature; who has signed it by then, and how many must."""
        signature = (
            self.authority.sign(document, f"{person}@example.org", issuer)
            if keyless
            else self.author.sign(document, person)
        )
        artifact = await self.author.worker.push(document, [signature])
        return [*artifact.signers, f"of {artifact.needed}"]

    async def refused(self, document: bytes, by: str) -> None:
        """Load a document that a quorum of the board approved and a gate tested; too few maintainers have signed it."""
        request = await self.author.prepared(document)  # pushes Mara's OpenPGP signature
        lease = await self.author.lease(request.update_id)
        with pytest.raises(UntrustedError, match=by):
            await self.author.load(request.model_copy(update={"fencing_token": lease.fencing_token}))
        await self.author.release_lease(lease)


@pytest.fixture
def authority() -> KeylessAuthority:
    return KeylessAuthority()


@pytest.fixture
def environment_files(tmp_path: Path, authority: KeylessAuthority) -> EnvironmentFiles:
    directory = tmp_path / "environment"
    root, secret = tmp_path / "root.json", {}
    root.write_bytes(authority.trusted_root())
    for person in ("mara", "marc"):
        secret[person], certificate, _ = generate_key(f"{person.title()} <{person}@example.org>")
        (tmp_path / f"{person}.asc").write_bytes(certificate)
    named = f"mara={tmp_path / 'mara.asc'},marc={tmp_path / 'marc.asc'},nils"
    keyless = [f"--sigstore={person}={person}@example.org,{ISSUER}" for person in ("mara", "nils")]
    takes = [f"--threshold={one}" for one in ("document=2", "document_first_release=3", "document_rollback=3")]
    people = ["--maintainers", named, "--author", "mara", "--board", "alva,bruno", "--operator", "olga"]
    made = ["init", "--directory", str(directory), "--environment", ENVIRONMENT, "--sigstore-root", str(root)]
    assert run([*made, *people, *keyless, *takes]) == 0
    for person, tsk in secret.items():
        (directory / "keys" / f"{person}.tsk").write_bytes(tsk)
    return EnvironmentFiles.configured(directory)


@pytest.fixture
def maintainers(author: Author, authority: KeylessAuthority) -> Maintainers:
    return Maintainers(author, authority)


@pytest.fixture
def engine(service_environment: ServiceEnvironment, tmp_path: Path) -> Iterator[Service]:
    """A policy engine that follows, with the same trust policy."""
    settings = service_environment.consumer_settings("policy-engine-1", POLL_SECONDS="0.2")
    engine = Service("policy_engine", settings, tmp_path / "engine.log").start()
    yield engine
    engine.kill()


async def test_a_document_goes_live_when_as_many_people_signed_it_as_its_release_takes(
    maintainers: Maintainers, author: Author, engine: Service
) -> None:
    document = author.draft("1.0.0")
    assert await maintainers.push(document, "mara") == ["mara", "of 3"]
    assert await maintainers.push(document, "mara", keyless=True) == ["mara", "of 3"], "one person in two ways is one"
    with pytest.raises(UntrustedError, match="no signature of this document counts") as by_another_login:
        await maintainers.push(document, "nils", keyless=True, issuer="https://login.example.net")
    assert "belongs to nobody" in by_another_login.value.diagnostics()
    assert await maintainers.push(document, "nils", keyless=True) == ["mara", "nils", "of 3"]
    judged = await author.operator.validate(checksum_of(document))
    assert [issue.message for issue in judged.issues] == ["signed by mara, nils; the trust policy takes 3 maintainers"]
    await maintainers.refused(document, "signed by mara, nils; the trust policy takes 3 maintainers")
    assert await maintainers.push(document, "marc") == ["mara", "marc", "nils", "of 3"]
    first = await author.confirmed(document)

    async def obeyed() -> bool:
        return (await engine.policy()).generation == first.generation

    await eventually(obeyed)

    # An update takes two people: one by key and one keylessly are two.
    second = author.draft("1.1.0", following(first))
    assert await maintainers.push(second, "mara", keyless=True) == ["mara", "of 2"]
    await maintainers.refused(second, "signed by mara; the trust policy takes 2 maintainers")
    assert await maintainers.push(second, "nils", keyless=True) == ["mara", "nils", "of 2"]
    live = await author.confirmed(second)
    current = await author.current()
    assert current is not None
    assert verify_current(current, trust=author.files.trust, environment=ENVIRONMENT, ring="default").generation == 2

    # Restoring it takes three here: the third signs when it is needed, and the stored document counts then.
    third = author.draft("1.2.0", Previous(version="1.1.0", checksum=live.checksum or ""))
    await maintainers.push(third, "nils", keyless=True)
    bad, held = await author.publish(third)
    await author.release_lease(held)
    lease = await author.lease(str(uuid4()), Kind.ROLLBACK)
    undoing = author.undoing(lease, bad.generation, live.checksum)
    with pytest.raises(UntrustedError, match="signed by mara, nils; the trust policy takes 3 maintainers"):
        await author.load(undoing, "undo")
    await maintainers.push(second, "marc")
    restored = await author.load(undoing, "undo")
    assert restored.checksum == live.checksum

    async def restored_everywhere() -> bool:
        return (await engine.policy()).generation == restored.generation

    await eventually(restored_everywhere)
