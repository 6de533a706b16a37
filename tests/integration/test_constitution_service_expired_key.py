"""A maintainer's key expires: what it signed stays live and can be restored, and it signs nothing new."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pysequoia
import pytest

from constitution.errors import UntrustedError
from constitution.release import Kind
from signatures.current import verify_current
from signatures.openpgp import sign_detached
from tests.helpers import eventually
from tests.world.author import Author
from tests.world.documents import following
from tests.world.files import ENVIRONMENT, EnvironmentFiles

pytestmark = pytest.mark.slow

LIFE = timedelta(seconds=100)  # Sequoia dates a key a minute back


@pytest.fixture
def environment_files(tmp_path: Path) -> EnvironmentFiles:
    """An environment whose maintainer has a second key, that expires soon after."""
    files = EnvironmentFiles.make(tmp_path / "files")
    brief = pysequoia.Tsk.generate(user_id="Mara <mara@brief.invalid>", validity_seconds=int(LIFE.total_seconds()))
    certificate = brief.extract_certificate()
    (files.directory / "keys" / "brief.tsk").write_bytes(bytes(brief))
    (files.directory / "trust" / "certificates" / "brief.asc").write_text(str(certificate))
    policy = files.directory / "trust" / "trust.toml"
    mine = 'certificate = "certificates/mara.asc" }'
    other = f'{{ fingerprint = "{certificate.fingerprint}", certificate = "certificates/brief.asc" }}'
    text = policy.read_text()
    assert mine in text
    policy.write_text(text.replace(mine, f"{mine}, {other}"))
    return files


async def test_a_rollback_restores_what_a_key_signed_that_has_expired_since(author: Author) -> None:
    certificate = author.files.directory / "trust" / "certificates" / "brief.asc"
    expires = pysequoia.Cert.from_bytes(certificate.read_bytes()).expiration
    assert expires is not None
    good = author.draft("1.0.0")
    signature = sign_detached(good, author.files.tsk("brief"))
    await author.worker.push(good, [signature])
    first = await author.confirmed(good, expected_generation=0)  # one signature of a person is kept: the first
    assert first.checksum is not None
    late = author.draft("1.2.0", following(first))
    signed_late = sign_detached(late, author.files.tsk("brief"))  # later the key refuses to sign at all
    await author.confirmed(author.draft("1.1.0", following(first)), expected_generation=1)

    async def expired() -> bool:
        return datetime.now(UTC) > expires + timedelta(seconds=1)

    await eventually(expired, LIFE)
    with pytest.raises(UntrustedError) as refused:
        await author.worker.push(late, [signed_late])
    assert any("expired" in issue.message for issue in refused.value.issues)

    lease = await author.lease("7d0e5d1c-53c7-4f7b-8a0e-0d0f4b0c8b11", Kind.ROLLBACK)
    restored = await author.load(author.undoing(lease, 2, first.checksum))
    current = await author.worker.current("default")
    assert current is not None
    assert (current.generation, current.kind, current.checksum) == (3, Kind.ROLLBACK, first.checksum)
    statement = verify_current(current, trust=author.files.trust, environment=ENVIRONMENT, ring="default")
    assert statement.signatures_at == first.effective_at < expires < restored.effective_at
