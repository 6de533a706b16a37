"""What the assessor signs: nobody else's key counts, no byte can be changed, and it speaks for one release only."""

import base64
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitution.api import EvidenceRecord
from constitution.checksum import checksum_of
from constitution.environment import Strategy, TargetSource
from constitution.errors import InvalidRequestError, UntrustedError
from constitution.release import Envelope, Kind, Release, Verdict
from constitution.trust.attestation import (
    GatePredicate,
    GoldenReport,
    SyncPredicate,
    WatchPredicate,
)
from constitution.trust.fleet import LISTED, Discovered, FleetReport, TargetReport, exceptions, listing
from constitution.trust.plan import Plan
from constitution.trust.trust_policy import TrustPolicy
from signatures import dsse, statements
from signatures.attestations import Attestation, sign_attestation, verify_attestation
from signatures.tokens import ClientKey
from tests.unit.keyring import NOW, keyring, toml_of
from tests.unit.test_statements import release as release_said

CHECKSUM, OTHER = checksum_of(b"a document"), checksum_of(b"another")
UPDATE = "11111111-2222-3333-4444-555555555555"
STRATEGY = Strategy(watch_seconds=60, alpha=0.01)


def suite(name: str, **changes: Any) -> EvidenceRecord.Suite:
    said = {"name": name, "tests": 3, "failures": 0, "errors": 0, "skipped": 0, "seconds": 1.5, "junit": OTHER,
            "served": (CHECKSUM,), **changes}  # fmt: skip
    return EvidenceRecord.Suite.model_validate(said)


def gate(*suites: EvidenceRecord.Suite) -> GatePredicate:
    record = EvidenceRecord(
        environment="development",
        checksum=CHECKSUM,
        version="1.1.0",
        previous=OTHER,
        change_request="CR-1",
        gate_digest=OTHER,
        suites=suites or (suite("chaos"), suite("policy")),
        update_id=UPDATE,
    )
    return GatePredicate.of(record, OTHER)


def target(name: str, state: str = "converged", generation: int | None = 7, checksum: str | None = CHECKSUM) -> Any:
    return TargetReport.model_validate({"id": name, "state": state, "generation": generation, "checksum": checksum})


def sync(*targets: TargetReport, **changes: Any) -> SyncPredicate:
    said = {
        "environment": "development",
        "generation": 7,
        "update_id": UPDATE,
        "checksum": CHECKSUM,
        "rings": ("default",),
        "targets": targets or (target("engine"), target("orchestrator")),
        "golden": None,
        **changes,
    }
    return SyncPredicate.model_validate(said)


def watch(**changes: Any) -> WatchPredicate:
    said = {
        "environment": "development",
        "generation": 7,
        "update_id": UPDATE,
        "strategy": STRATEGY,
        "test_evidence": OTHER,
        "published_at": NOW,
        "ends_at": NOW + timedelta(seconds=60),
        "decided_at": NOW + timedelta(seconds=60),
        "verdict": Verdict.OK,
        "evidence": CHECKSUM,
        **changes,
    }
    return WatchPredicate.model_validate(said)


def live(kind: Kind = Kind.UPDATE) -> Release:
    ring = keyring()
    return Release(
        environment="development",
        generation=7,
        kind=kind,
        rings=("default",),
        version="1.1.0",
        checksum=CHECKSUM,
        previous_generation=6,
        rollback_of=None,
        update_id=UPDATE,
        event_id="e",
        change_request="CR-1",
        reason="r",
        effective_at=NOW,
        approvers=(),
        evidence=OTHER,
        statement=statements.sign_release(release_said(), ring.service.id, ring.service.private_key),
    )


def signed(predicate: Attestation, key: ClientKey | None = None) -> Envelope:
    key = key or keyring().assessor
    return sign_attestation(predicate, key.id, key.private_key)


def plan(**changes: Any) -> Plan:
    return Plan(update_id=UPDATE, strategy="watched", watch=STRATEGY.model_copy(update=changes), rings=("default",))


@pytest.mark.parametrize("predicate", [gate(), sync(), watch()])
def test_what_the_assessor_signed_is_read_back_whole(predicate: Attestation) -> None:
    assert verify_attestation(signed(predicate), keyring().trust) == predicate


def test_the_gate_says_what_in_toto_specifies_for_a_test_result() -> None:
    said = dsse.payload_of(signed(gate(suite("chaos"), suite("policy", failures=1))), statements.IN_TOTO)
    assert said["_type"] == "https://in-toto.io/Statement/v1"
    assert said["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    assert said["subject"] == [{"name": "constitution", "digest": {"sha256": CHECKSUM.removeprefix("sha256:")}}]
    predicate = said["predicate"]
    assert predicate["result"] == "FAILED"
    assert predicate["configuration"] == [{"name": "gate", "digest": {"sha256": OTHER.removeprefix("sha256:")}}]
    assert (predicate["passedTests"], predicate["failedTests"]) == (["chaos"], ["policy"])


@pytest.mark.parametrize("predicate", [gate(), sync(), watch()])
def test_only_an_assessors_key_counts(predicate: Attestation) -> None:
    ring = keyring()
    stranger = ClientKey.generate("assessor")
    for key in (ring.worker, ring.service, stranger, ClientKey.generate("nobody")):
        with pytest.raises(UntrustedError, match=r"does not know|does not verify"):
            verify_attestation(signed(predicate, key), ring.trust)


def test_an_assessors_key_signs_no_release() -> None:
    ring = keyring()
    with pytest.raises(UntrustedError, match="does not know"):
        statements.verify_release(
            statements.sign_release(release_said(), ring.assessor.id, ring.assessor.private_key), ring.trust
        )


def test_another_environment_is_refused() -> None:
    elsewhere = sync().model_copy(update={"environment": "staging"})
    with pytest.raises(UntrustedError, match="is of staging"):
        verify_attestation(signed(elsewhere), keyring().trust)


def test_a_statement_about_another_subject_than_its_predicate_is_refused() -> None:
    key = keyring().assessor
    said = dsse.payload_of(signed(gate()), statements.IN_TOTO)
    said["subject"] = [{"name": "constitution", "digest": {"sha256": OTHER.removeprefix("sha256:")}}]
    swapped = dsse.sign_ed25519(dsse.statement_bytes(said), statements.IN_TOTO, key.id, key.private_key)
    with pytest.raises(UntrustedError, match="subject"):
        verify_attestation(swapped, keyring().trust)
    said["predicateType"] = "urn:other"
    other = dsse.sign_ed25519(dsse.statement_bytes(said), statements.IN_TOTO, key.id, key.private_key)
    with pytest.raises(UntrustedError, match="no attestation"):
        verify_attestation(other, keyring().trust)


@given(st.data())
def test_no_byte_of_it_can_be_changed(data: st.DataObject) -> None:
    envelope = signed(watch())
    payload = bytearray(base64.b64decode(envelope.payload))
    at = data.draw(st.integers(0, len(payload) - 1))
    payload[at] ^= data.draw(st.integers(1, 255))
    changed = envelope.model_copy(update={"payload": base64.b64encode(payload).decode()})
    with pytest.raises(UntrustedError):
        verify_attestation(changed, keyring().trust)


def test_a_sync_shows_that_every_target_obeys_this_release() -> None:
    targets = {"engine", "orchestrator"}
    assert sync().problems(live(), targets) == ()
    refused: list[tuple[SyncPredicate, str]] = [
        (sync(environment="staging"), "environment"),
        (sync(generation=6), "generation"),
        (sync(update_id=UPDATE.replace("1", "9")), "update id"),
        (sync(checksum=OTHER), "another document"),
        (sync(rings=("canary",)), "other rings"),
        (sync(target("engine")), "orchestrator was not asked"),
        (sync(target("engine"), target("orchestrator", "lagging")), "lagging"),
        (sync(target("engine"), target("orchestrator", "unreachable", None, None)), "unreachable"),
        (sync(target("engine"), target("orchestrator", generation=6)), "reported generation 6"),
        (sync(target("engine"), target("orchestrator", checksum=OTHER)), "reported generation 7"),
    ]
    for predicate, why in refused:
        assert why in "; ".join(predicate.problems(live(), targets))
    for golden in (None, GoldenReport(engines=(), vectors=3), GoldenReport(engines=("engine",), vectors=0)):
        said = "; ".join(sync(golden=golden).problems(live(), targets, ("engine",)))
        assert "engine was not asked the golden requests" in said
    asked = sync(golden=GoldenReport(engines=("engine",), vectors=3))
    assert asked.problems(live(), targets, ("engine",)) == ()


def fleet(*targets: TargetReport, **changes: Any) -> SyncPredicate:
    report = FleetReport.of_listing(listing(targets))
    return sync(**{"targets": exceptions(targets), "fleet": report, **changes})


NAMES = tuple(f"engine-{number}" for number in range(LISTED + 1))
OBEY = tuple(target(name) for name in NAMES)


def test_a_sync_of_a_large_fleet_shows_it_in_a_few_bytes() -> None:
    said = fleet(*OBEY)
    assert verify_attestation(signed(said), keyring().trust) == said
    assert said.problems(live(), NAMES) == ()
    assert said.problems(live(), set(NAMES)) == ()
    assert (said.targets, said.counts()) == ((), (LISTED + 1, LISTED + 1))
    assert len(signed(said).model_dump_json()) < 2_000


def test_a_large_fleet_with_a_target_more_or_less_or_another_is_refused() -> None:
    said = fleet(*OBEY)
    assert said.fleet is not None
    for names in (NAMES[:-1], (*NAMES, "another"), (*NAMES[:-1], "another")):
        assert "not of the" in "; ".join(said.problems(live(), names)), names
    behind = target("engine-7", "lagging", 6, OTHER)
    silent = target("engine-7", "unreachable", None, None)
    rest = tuple(one for one in OBEY if one.id != "engine-7")
    assert "1 of its targets are lagging" in "; ".join(fleet(*rest, behind).problems(live(), NAMES))
    assert "1 of its targets are unreachable" in "; ".join(fleet(*rest, silent).problems(live(), NAMES))
    assert fleet(*rest, silent).problems(live(Kind.ROLLBACK), NAMES) == ()
    assert "lagging" in "; ".join(fleet(*rest, behind).problems(live(Kind.ROLLBACK), NAMES))
    short = said.fleet.model_copy(update={"converged": LISTED})
    assert "do not add up" in "; ".join(fleet(*OBEY, fleet=short).problems(live(), NAMES))
    assert "another document" in "; ".join(fleet(*OBEY, checksum=OTHER).problems(live(), NAMES))
    assert "was not asked the golden requests" in "; ".join(said.problems(live(), NAMES, NAMES))


SOURCE = TargetSource(id="pods", source="file", at="pods.json", kind="policy_engine", min_targets=2)
PODS = (target("pod-1"), target("pod-2"))


def found(*targets: TargetReport, **changes: Any) -> Discovered:
    said = {"source": "pods", "fleet": FleetReport.of_listing(listing(targets)), **changes}
    return Discovered.model_validate(said)


def test_each_target_source_is_proved_by_as_many_as_it_must_name() -> None:
    targets = {"engine", "orchestrator"}

    def problems(*discovered: Discovered, kind: Kind = Kind.UPDATE, decides: bool = False) -> str:
        said = sync(discovered=discovered)
        assert verify_attestation(signed(said), keyring().trust) == said
        return "; ".join(said.problems(live(kind), targets, sources=(SOURCE,), decides=decides))

    assert problems(found(*PODS)) == ""
    assert problems(found(*PODS, golden=2), decides=True) == ""
    assert "nobody of target source pods was asked" in problems()
    assert "nobody of target source pods was asked" in problems(found(*PODS, source="others"))
    assert "named 1 targets, fewer than 2" in problems(found(PODS[0]))
    assert "named 0 targets, fewer than 2" in problems(found())
    assert "1 of its targets are lagging" in problems(found(PODS[0], target("pod-2", "lagging", 6, OTHER)))
    silent = found(PODS[0], target("pod-2", "unreachable", None, None))
    assert "1 of its targets are unreachable" in problems(silent)
    assert problems(silent, kind=Kind.ROLLBACK) == ""
    assert "1 engines of target source pods were not asked" in problems(found(*PODS, golden=1), decides=True)
    assert sync(discovered=(found(*PODS),)).counts() == (4, 4)


def test_the_golden_requests_of_a_large_fleet_name_its_engines_by_digest() -> None:
    report = GoldenReport.of(NAMES, 3)
    assert (report.engines, report.unasked(NAMES)) == ((), "")
    assert "one or more of" in report.unasked((*NAMES, "another"))
    assert report.model_copy(update={"vectors": 0}).unasked(NAMES) != ""
    assert GoldenReport.of(NAMES[:2], 3) == GoldenReport(engines=NAMES[:2], vectors=3)


def test_what_was_signed_before_there_were_large_fleets_is_written_as_it_was() -> None:
    said = dsse.payload_of(signed(sync(golden=GoldenReport(engines=("engine",), vectors=3))), statements.IN_TOTO)
    assert set(said["predicate"]) == {
        "environment", "generation", "update_id", "checksum", "rings", "targets", "golden"
    }  # fmt: skip
    assert set(said["predicate"]["golden"]) == {"engines", "vectors"}


def test_a_list_of_targets_that_names_one_twice_is_none() -> None:
    with pytest.raises(ValueError, match="twice"):
        FleetReport.of_listing(listing((target("engine"), target("engine"))))
    with pytest.raises(ValueError, match="state"):
        FleetReport.of_listing(b"engine\tgone\t\t\n")


def test_an_undo_waits_for_no_target_that_is_silent() -> None:
    silent = sync(target("engine"), target("orchestrator", "unreachable", None, None))
    assert silent.problems(live(Kind.ROLLBACK), {"engine", "orchestrator"}) == ()
    behind = sync(target("engine"), target("orchestrator", "lagging", 6, OTHER))
    assert "lagging" in "; ".join(behind.problems(live(Kind.ROLLBACK), {"engine"}))


def test_a_watch_speaks_for_one_release_and_the_strategy_that_was_signed() -> None:
    assert watch().problems(live(), plan()) == ()
    refused: list[tuple[WatchPredicate, str]] = [
        (watch(environment="staging"), "environment"),
        (watch(generation=6), "generation"),
        (watch(update_id=UPDATE.replace("1", "9")), "update id"),
        (watch(published_at=NOW - timedelta(seconds=1)), "time of publish"),
        (watch(strategy=STRATEGY.model_copy(update={"watch_seconds": 30})), "another strategy"),
        (watch(test_evidence=CHECKSUM), "another expected change"),
        (watch(test_evidence=None), "another expected change"),
    ]
    for predicate, why in refused:
        assert why in "; ".join(predicate.problems(live(), plan()))


def test_no_watch_speaks_for_what_nobody_wished_to_be_watched() -> None:
    why = ("nobody has signed that this release is watched",)
    for kind in (Kind.ROLLBACK, Kind.WITHDRAW):
        assert watch().problems(live(kind), plan()) == why
    unwatched = STRATEGY.model_copy(update={"watch_seconds": 0})
    assert watch(strategy=unwatched).problems(live(), plan(watch_seconds=0)) == why


@pytest.mark.parametrize("owner", [lambda ring: ring.service, lambda ring: ring.worker])
def test_an_assessors_key_is_nobody_elses(owner: Callable[[Any], ClientKey]) -> None:
    ring = keyring()
    other = owner(ring)
    shared = ClientKey("assessor", other.key)
    people: list[Any] = [("alva", ["board"], [])]
    with pytest.raises(InvalidRequestError) as refused:
        TrustPolicy.parse(toml_of(people, ring.service, ring.worker, assessor=shared), ring.files)
    assert "shared-key" in json.dumps([issue.code for issue in refused.value.issues])
