"""Defences inside constitution-service and the consumers; their tests start servers."""

from typing import Final

from tests.mutants.mutant import Mutant
from tests.world.without import Edit

SERVICE_CODE: Final = "services/constitution_service"
ATTESTATIONS: Final = "tests/integration/test_constitution_service_attestations.py"
OURS: Final = "tests/integration/test_constitution_service_attacks.py"
LOADS: Final = f"{OURS}::test_loads_that_nothing_allows_are_refused_and_audited"
ORDERS: Final = f"{OURS}::test_forged_and_replayed_orders_are_refused_and_audited"
EVIDENCE: Final = f"{SERVICE_CODE}/artifacts/evidence.py"
UNSIGNED: Final = 'context.config.environment.unsigned_steering != "allow" or request'
RULES: Final = "constitution/trust/approval_rules.py"

SERVICE: Final = (
    Mutant(
        "a load without the lease, or with an older token of it",
        (
            Edit(
                f"{SERVICE_CODE}/tables/leases.py",
                "held.update_id != update_id or held.fencing_token != fencing_token:\n        raise LeaseLostError",
                "held.update_id != update_id:\n        raise LeaseLostError",
            ),
        ),
        (LOADS,),
        servers=True,
    ),
    Mutant(
        "a load with another request's approvals",
        (
            Edit(
                RULES,
                'names = ["kind", "environment", "checksum", "change_request", "evidence", "rollback_of", "plan"]',
                'names = ["kind"]',
            ),
            Edit(RULES, 'names += ["version", "previous"]', "pass"),
            Edit(
                f"{SERVICE_CODE}/releasing/authority.py",
                "if plan is not None and plan.update_id == request.update_id), None)",
                "if plan is not None), None)",
            ),
        ),
        (LOADS,),
        servers=True,
    ),
    Mutant(
        "a load with an attestation of another document",
        (Edit(EVIDENCE, "if GatePredicate.of(record, request.test_evidence) not in said:", "if not said:"),),
        (f"{ATTESTATIONS}::test_a_load_needs_the_gates_attestation_of_this_very_evidence",),
        servers=True,
    ),
    Mutant(
        "a load with invented evidence",
        (
            Edit(EVIDENCE, "issues = list(problems(record, supported))", "issues: list[Issue] = []"),
            Edit(EVIDENCE, "if GatePredicate.of(record, request.test_evidence) not in said:", "if False:"),
        ),
        ("tests/integration/test_constitution_service_refusals.py::test_evidence_must_be_of_these_bytes_and_green",),
        servers=True,
    ),
    Mutant(
        "an unsigned order",
        (Edit(f"{SERVICE_CODE}/releasing/order_calls.py", UNSIGNED, "request"),),
        (ORDERS,),
        servers=True,
    ),
    Mutant(
        "an order again",
        (Edit(f"{SERVICE_CODE}/tables/orders.py", 'if known["attempt"] != request.attempt:', "if False:"),),
        (ORDERS,),
        servers=True,
    ),
    Mutant(
        "a watch or sync result completed by hand",
        (
            Edit(
                f"{SERVICE_CODE}/releasing/standing_rules.py",
                "    if all(problems):  # also of none",
                "    if False:",
            ),
        ),
        (f"{ATTESTATIONS}::test_a_release_is_confirmed_only_where_an_assessor_saw_everybody_obey",),
        servers=True,
    ),
    Mutant(
        "a receipt with a line removed",
        (Edit("signatures/receipts.py", "    dsse.verify_service(envelope, trust)\n", ""),),
        ("tests/integration/test_receipts.py::test_an_archived_release_verifies_offline_and_no_changed_byte_does",),
        servers=True,
    ),
    Mutant(
        "a file of the archive changed, with its manifest",
        (Edit("signatures/archive_manifests.py", "    if said.manifest != checksum_of(manifest):", "    if False:"),),
        ("tests/integration/test_archive_verify.py::test_a_commit_without_a_key_is_seen",),
        servers=True,
    ),
    Mutant(
        "a forged event",
        (
            Edit(
                "constitution_follow/hint.py",
                "    release = verify_release(envelope, trust)\n",
                "    from signatures import statements as s\n"
                "    release = s.read_bound(envelope, s.RELEASE_PREDICATE, s.ReleasePredicate, s._release_subject)\n",
            ),
            Edit("constitution_follow/hint.py", "if generation != release.generation:", "if False:"),
        ),
        ("tests/integration/test_policy_engine.py::TestHints::test_forged_events_change_nothing_and_ask_nothing",),
        servers=True,
    ),
    Mutant(
        "a forged object in the store",
        (
            Edit(
                "adapters/artifact_store.py",
                "if digest is not None and (found := checksum_of(data)) != digest:",
                "if digest is not None and (found := digest) != digest:",
            ),
        ),
        ("tests/integration/test_constitution_service_releases.py::test_a_vandalised_artifact_store_is_healed",),
        servers=True,
    ),
    Mutant(
        "a forged floor key",
        (
            Edit(
                f"{SERVICE_CODE}/delivery/cache_writer.py",
                "written = await cache.reset(ring, current, floor)",
                "return False",
            ),
        ),
        ("tests/integration/test_constitution_service_relay.py::test_a_forged_floor_keeps_no_release_out_of_redis",),
        servers=True,
    ),
    Mutant(
        "the probe tenant used to escape the watch",
        (
            Edit(
                "services/following/probe.py",
                "if tenant != PROBE_TENANT and not own_time and not refreshes:",
                "if True:",
            ),
        ),
        ("tests/integration/test_policy_engine.py::TestAsking::test_the_probe_tenant_needs_the_probe_scope",),
        servers=True,
    ),
)
