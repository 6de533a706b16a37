"""The one check before anybody obeys: nothing that is not in the signed statement, and nothing that differs from it."""

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pysequoia
import pytest

from constitution.checksum import checksum_of
from constitution.errors import UntrustedError
from constitution.release import CurrentConstitution, Kind, ReleasePredicate
from constitution.trust.trust_policy import Thresholds, TrustPolicy
from signatures import statements
from signatures.current import verify_current
from signatures.openpgp import sign_detached
from tests.unit.keyring import NOW, keyring, toml_of

DOCUMENT = "the exact text of a document, with ünïcode"
CHECKSUM = checksum_of(DOCUMENT.encode())
OTHER = checksum_of(b"what was live before")


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
    return verify_current(shown, trust=keyring().trust, environment=environment, ring=ring)


def test_a_service_that_publishes_what_too_few_maintainers_signed_is_not_obeyed() -> None:
    """Also with its key: the threshold is of the release's kind, as the signed statement says it."""
    trust, document = keyring().trust, DOCUMENT.encode()
    signatures = {who: sign_detached(document, keyring().tsk[who]) for who in ("mara", "mara-second", "marc")}
    releases: dict[str, dict[str, Any]] = {
        "update": {"previous": OTHER},
        "first": {"previous": None},
        "rollback": {"previous": OTHER, "kind": Kind.ROLLBACK},
    }
    for demanding, name in {
        "update": "document",
        "first": "document_first_release",
        "rollback": "document_rollback",
    }.items():
        policy = trust.model_copy(update={"thresholds": Thresholds(**{"document_rollback": 1, name: 2})})
        for kind, predicate in releases.items():
            for signers in (("mara", "mara-second"), ("mara", "marc")):
                files = [signatures[who] for who in signers]
                shown = current(
                    {**predicate, "signatures": tuple(map(checksum_of, files))},
                    signatures=tuple(base64.b64encode(data).decode() for data in files),
                )
                takes = 2 if kind == demanding or (kind == "first" and demanding == "update") else 1
                if takes == 1 or "marc" in signers:
                    verify_current(shown, trust=policy, environment="development", ring="default")
                else:
                    with pytest.raises(UntrustedError, match="takes 2 maintainers"):
                        verify_current(shown, trust=policy, environment="development", ring="default")


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


class TestExpiredKey:
    """A maintainer's key ends in an hour; what matters is when the signature had to be good."""

    def of(self, live_at: datetime, signatures_at: datetime | None) -> tuple[CurrentConstitution, TrustPolicy]:
        ring = keyring()
        tsk = pysequoia.Tsk.generate(user_id="Grace <g@example.org>", validity_seconds=3600)
        certificate = tsk.extract_certificate()
        board = [
            (p.id, ["board"], [(p.openpgp[0].fingerprint, p.openpgp[0].certificate)]) for p in ring.trust.people[2:]
        ]
        people = [("grace", ["maintainer"], [(certificate.fingerprint, "grace.asc")]), *board]
        files = {**ring.files, "grace.asc": str(certificate).encode()}
        signature = sign_detached(DOCUMENT.encode(), bytes(tsk))
        shown = current(
            {"effective_at": live_at, "signatures_at": signatures_at, "signatures": (checksum_of(signature),)},
            signatures=(base64.b64encode(signature).decode(),),
        )
        return shown, TrustPolicy.parse(toml_of(people, ring.service, ring.worker), files)

    @pytest.mark.parametrize(("hours", "restored"), [(0, False), (2, True)], ids=["still live", "restored"])
    def test_what_was_signed_in_time_is_obeyed(self, hours: int, *, restored: bool) -> None:
        now = datetime.now(UTC)
        shown, trust = self.of(now + timedelta(hours=hours), now if restored else None)
        assert verify_current(shown, trust=trust, environment="development", ring="default").generation == 3

    def test_what_went_live_after_the_end_is_refused(self) -> None:
        shown, trust = self.of(datetime.now(UTC) + timedelta(hours=2), None)
        with pytest.raises(UntrustedError, match="signed by nobody"):
            verify_current(shown, trust=trust, environment="development", ring="default")


class TestWithdraw:
    GONE = {"kind": Kind.WITHDRAW, "checksum": None, "version": None, "previous": CHECKSUM, "signatures": ()}  # noqa: RUF012

    def test_it_says_that_nothing_is_live(self) -> None:
        assert verify(current(self.GONE, document=None, signatures=())).checksum is None

    def test_it_carries_no_document(self) -> None:
        with pytest.raises(UntrustedError, match="a withdrawal carries a document"):
            verify(current(self.GONE))
