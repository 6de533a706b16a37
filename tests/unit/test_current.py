"""The one check before anybody obeys: nothing that is not in the signed statement, and nothing that differs from it."""

import base64
from datetime import timedelta
from typing import Any

import pytest

from constitution.checksum import checksum_of
from constitution.errors import UntrustedError
from constitution.release import CurrentConstitution, Kind, ReleasePredicate
from signatures import statements
from signatures.current import verify_current
from signatures.openpgp import sign_detached
from tests.unit.keyring import NOW, keyring

DOCUMENT = "the exact text of a document, with ünïcode"
CHECKSUM = checksum_of(DOCUMENT.encode())


def current(predicate: dict[str, Any] | None = None, signer: str = "mara", **changes: Any) -> CurrentConstitution:
    ring = keyring()
    signature = sign_detached(DOCUMENT.encode(), ring.tsk[signer])
    said: dict[str, Any] = {
        "environment": "development",
        "rings": ("default", "canary"),
        "generation": 3,
        "kind": Kind.UPDATE,
        "version": "1.0.0",
        "checksum": CHECKSUM,
        "previous": None,
        "effective_at": NOW,
        "signatures": (checksum_of(signature),),
        "update_id": "u",
        **(predicate or {}),
    }
    statement = statements.sign_release(ReleasePredicate(**said), ring.service.id, ring.service.private_key)
    shown = {name: said[name] for name in ("environment", "generation", "kind", "version", "checksum", "effective_at")}
    fields: dict[str, Any] = {
        **shown,
        "document": DOCUMENT,
        "signatures": (base64.b64encode(signature).decode(),),
        "statement": statement,
    }
    return CurrentConstitution(**{**fields, **changes})


def verify(shown: CurrentConstitution, ring: str = "default", environment: str = "development") -> ReleasePredicate:
    return verify_current(shown, trust=keyring().trust, environment=environment, ring=ring, now=NOW)


def test_what_was_signed_is_obeyed() -> None:
    assert verify(current()).generation == 3
    assert verify(current(), ring="canary").checksum == CHECKSUM


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"document": DOCUMENT + " "}, "the document's bytes are"),
        ({"document": None}, "carries no document"),
        ({"document": "\ud800"}, "UTF-8"),
        ({"generation": 4}, "generation"),
        ({"version": "1.0.1"}, "version"),
        ({"checksum": checksum_of(b"x")}, "checksum"),
        ({"kind": Kind.ROLLBACK}, "kind"),
        ({"environment": "production"}, "environment"),
        ({"effective_at": NOW + timedelta(seconds=1)}, "effective_at"),
        ({"signatures": ()}, "signed by nobody"),
        ({"signatures": ("!!!",)}, "signed by nobody"),
    ],
)
def test_a_forged_field_is_refused(change: dict[str, Any], said: str) -> None:
    honest = current()
    forged = CurrentConstitution.model_construct(**{**dict(honest), **change})
    with pytest.raises(UntrustedError, match=said):
        verify(forged)


def test_another_environment_or_ring_is_refused() -> None:
    with pytest.raises(UntrustedError, match="environment"):
        verify(current(), environment="production")
    with pytest.raises(UntrustedError, match="not europe"):
        verify(current(), ring="europe")
    with pytest.raises(UntrustedError, match="environment"):
        verify(current({"environment": "production"}))


def test_a_signature_that_the_statement_does_not_list_is_not_counted() -> None:
    with pytest.raises(UntrustedError, match="signed by nobody"):
        verify(current({"signatures": ()}))


def test_a_document_that_no_maintainer_signed_is_refused_though_released() -> None:
    with pytest.raises(UntrustedError, match="signed by nobody"):
        verify(current(signer="alva"))


def test_rubbish_among_the_signatures_blocks_nothing() -> None:
    honest = current()
    assert verify(honest.model_copy(update={"signatures": ("!", "AAAA", *honest.signatures)})).generation == 3


class TestWithdraw:
    GONE = {"kind": Kind.WITHDRAW, "checksum": None, "version": None, "previous": CHECKSUM, "signatures": ()}  # noqa: RUF012

    def test_it_says_that_nothing_is_live(self) -> None:
        assert verify(current(self.GONE, document=None, signatures=())).checksum is None

    def test_it_carries_no_document(self) -> None:
        with pytest.raises(UntrustedError, match="a withdrawal carries a document"):
            verify(current(self.GONE))
