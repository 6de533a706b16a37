"""Names of sigstore-python that are not its public interface, and that keyless.py and signatures/sigstore.py need."""

import pytest
from sigstore._internal.fulcio.client import ExpiredCertificate, FulcioClientError
from sigstore._internal.rekor import RekorClientError
from sigstore.errors import Error
from sigstore.models import Bundle
from sigstore.sign import Signer

from tests.recorded_bundles import Recorded


@pytest.mark.parametrize("error", [ExpiredCertificate, FulcioClientError, RekorClientError])
def test_an_error_still_has_no_public_class(error: type[Exception]) -> None:
    """Where one has, keyless.py should catch that."""
    assert not issubclass(error, Error)
    assert issubclass(error, Exception)


def test_a_signer_still_gives_its_certificate_under_a_private_name_alone() -> None:
    assert [name for name in dir(Signer) if "cert" in name] == ["_signing_cert"]


def test_a_log_entry_still_gives_its_time_under_a_private_name_alone() -> None:
    entry = Bundle.from_json(Recorded().bundle("mara")).log_entry
    assert [name for name in dir(entry) if not name.startswith("_")] == []
    assert isinstance(entry._inner.integrated_time, int)
