"""Defences of who counts, and for what: decisions, orders, passkeys, tokens, the inbox, what is obeyed."""

from typing import Final

from tests.mutants.mutant import Mutant
from tests.world.without import Edit

RULES: Final = "constitution/trust/approval_rules.py"
COUNT: Final = "tests/unit/test_approval_rules.py"
OTHER: Final = f"{COUNT}::test_a_decision_on_something_else_does_not_count"
PASSKEYS: Final = "tests/unit/test_passkeys.py"
ASSERTION: Final = f"{PASSKEYS}::test_an_assertion_that_is_not_exactly_this_one_is_refused"
TOKENS: Final = "tests/unit/test_tokens.py"
CLAIMS: Final = f"{TOKENS}::test_a_claim_that_is_wrong_or_missing_is_refused"
NAMES: Final = 'names = ["kind", "environment", "checksum", "change_request", "evidence", "rollback_of", "plan"]'
CLIENT_DATA: Final = (
    "strict_json.read(__import__('webauthn').helpers.base64url_to_bytes("
    "strict_json.read(form)['response']['clientDataJSON']))"
)


def unnamed(field: str) -> Edit:
    """Decisions are no longer bound by a field."""
    return Edit(RULES, NAMES, NAMES.replace(f'"{field}"', '"kind"', 1))


PEOPLE: Final = (
    Mutant(
        "one person twice, under two keys or two kinds",
        (
            Edit(
                "signatures/verify.py",
                "if len(self.signers) >= threshold:",
                "if sum(finding.counted for finding in self.findings) >= threshold:",
            ),
        ),
        ("tests/unit/test_openpgp.py::TestCounting::test_a_person_with_two_keys_counts_once",),
    ),
    Mutant(
        "a threshold of 0",
        (Edit("constitution/trust/trust_policy.py", "approval: Annotated[int, Field(ge=1)] = 2", "approval: int = 2"),),
        ("tests/unit/test_trust.py::test_what_cannot_be_met_is_refused",),
    ),
    Mutant(
        "a forged decision",
        (
            Edit(
                "signatures/dsse.py",
                "    if len(results) != 1 or person is None:\n",
                "    person = person or people[0].id\n    if len(results) != 1:\n",
            ),
        ),
        ("tests/unit/test_statements.py::TestApproval::test_a_changed_decision_is_refused",),
    ),
    Mutant("a decision of another environment", (unnamed("environment"),), (f"{OTHER}[environment-production]",)),
    Mutant(
        "a decision on another version",
        (Edit(RULES, 'names += ["version", "previous"]', "pass"),),
        (f"{OTHER}[version-1.2.0]",),
    ),
    Mutant("a decision on other evidence", (unnamed("evidence"),), (OTHER,)),
    Mutant("a strategy changed after the approval", (unnamed("plan"),), (OTHER,)),
    Mutant(
        "a decision that comes late",
        (Edit(RULES, "if expires_at <= now:", "if False:"),),
        (f"{COUNT}::test_a_decision_counts_in_its_time_only",),
    ),
    Mutant(
        "the author's own approval",
        (Edit(RULES, "if person == author:", "if False:"),),
        (f"{COUNT}::test_the_author_cannot_approve",),
    ),
    Mutant(
        "approvals after a denial",
        (
            Edit(
                RULES, "if predicate.decision is BoardDecision.DENY and person in board", "if False and person in board"
            ),
        ),
        (f"{COUNT}::test_one_denial_stops_whatever_the_others_say",),
    ),
    Mutant(
        "an order of somebody else, or of another run, verb, step or time",
        (
            Edit(
                RULES,
                '    if issues:\n        raise NotApprovedError(f"the order',
                '    if False:\n        raise NotApprovedError(f"the order',
            ),
        ),
        (f"{COUNT}::TestOrder::test_any_other_does_not",),
    ),
    Mutant(
        "a passkey from another origin",
        (
            Edit(
                "signatures/passkeys.py",
                "expected_origin=[*trust.relying_party.origins]",
                f"expected_origin=[{CLIENT_DATA}['origin']]",
            ),
        ),
        (f"{ASSERTION}[another origin]",),
    ),
    Mutant(
        "a passkey of another domain name (RP id)",
        (Edit("signatures/passkeys.py", "expected_rp_id=trust.relying_party.id", 'expected_rp_id="example.org"'),),
        (f"{ASSERTION}[another relying party]",),
    ),
    Mutant(
        "a passkey without a verified user",
        (
            Edit(
                "signatures/passkeys.py",
                "credential_current_sign_count=0,\n            require_user_verification=True",
                "credential_current_sign_count=0,\n            require_user_verification=False",
            ),
        ),
        (f"{ASSERTION}[a user who was not verified]",),
    ),
    Mutant(
        "a passkey's assertion for another challenge",
        (
            Edit(
                "signatures/passkeys.py",
                "expected_challenge=hashlib.sha256(data).digest()",
                f"expected_challenge=__import__('webauthn').helpers.base64url_to_bytes({CLIENT_DATA}['challenge'])",
            ),
        ),
        (f"{ASSERTION}[of another statement]",),
    ),
    Mutant(
        "a token without the scope",
        (Edit("signatures/tokens.py", 'if not isinstance(asked, str) or scope not in asked.split(" "):', "if False:"),),
        (CLAIMS,),
    ),
    Mutant(
        "an expired token",
        (Edit("signatures/tokens.py", "if expires <= seconds:", "if False:"),),
        (f"{TOKENS}::test_a_minted_token_is_accepted_until_it_expires",),
    ),
    Mutant(
        "a token that nobody signed (`alg: none`)",
        (
            Edit(
                "signatures/tokens.py",
                "dict(jwt.decode(token, key, algorithms=[ALGORITHM]).claims)",
                "dict(json.loads(jws.extract_compact(token.encode()).payload))",
            ),
        ),
        (f"{TOKENS}::test_unsigned_tokens_are_refused",),
    ),
    Mutant(
        "a token for another audience",
        (Edit("signatures/tokens.py", 'if claims.get("aud") != f"constitution/{environment}":', "if False:"),),
        (CLAIMS,),
    ),
    Mutant(
        "an attestation by another key than an assessor's",
        (
            Edit(
                "signatures/dsse.py",
                'return _verify_pinned(envelope, trust.assessor, "attestation")',
                'return _verify_pinned(envelope, lambda i: trust.assessor(i) or trust.service(i), "attestation")',
            ),
        ),
        ("tests/unit/test_attestations.py::test_only_an_assessors_key_counts",),
    ),
    Mutant(
        "a confirmation by a sync of other targets than the environment's",
        (Edit("constitution/trust/fleet.py", "if self.asked != targets:", "if False:"),),
        ("tests/unit/test_attestations.py::test_a_large_fleet_with_a_target_more_or_less_or_another_is_refused",),
    ),
    Mutant(
        "a list of targets that has lost nearly all of them",
        (
            Edit("constitution/target_sources.py", "if count < source.min_targets:", "if False:"),
            Edit("constitution/trust/fleet.py", "if asked < source.min_targets:", "if False:"),
        ),
        (
            "tests/unit/test_target_sources.py::test_a_list_that_is_short_or_wrong_is_no_fleet",
            "tests/unit/test_attestations.py::test_each_target_source_is_proved_by_as_many_as_it_must_name",
        ),
    ),
    Mutant(
        "a path outside the inbox",
        (
            Edit(
                "activities/documents.py",
                'if not name or name.startswith(".") or "/" in name or "\\0" in name:',
                "if False:",
            ),
            Edit(
                "activities/documents.py", "os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK", "os.O_RDONLY | os.O_NONBLOCK"
            ),
        ),
        ("tests/unit/test_attacks.py::test_no_name_leads_out_of_the_inbox",),
    ),
    Mutant(
        "a file swapped between check and use",
        (Edit("activities/documents.py", "if found != checksum:", "if False:"),),
        ("tests/unit/test_attacks.py::test_bytes_that_were_swapped_after_the_check_are_refused",),
    ),
    Mutant(
        "a generation of 10⁹ in Redis or in an event",
        (Edit("signatures/current.py", '        ("generation", current.generation, release.generation),\n', ""),),
        ("tests/unit/test_attacks.py::test_a_generation_far_ahead_is_worth_its_signature",),
    ),
    Mutant(
        "a forged value in Redis",
        (Edit("signatures/current.py", "if checksum_of(document) != release.checksum:", "if False:"),),
        ("tests/unit/test_current.py::test_a_forged_field_is_refused",),
    ),
    Mutant(
        "an older trust policy",
        (
            Edit(
                "constitution/trust/trust_version.py",
                "    if new.version <= old.version:\n",
                "    if False:\n",
            ),
            Edit(
                "constitution/trust/trust_version.py", "    elif new.version != old.version + 1:\n", "    elif False:\n"
            ),
        ),
        ("tests/unit/test_trust_versions.py::test_an_older_the_same_and_a_skipped_version_are_refused",),
    ),
    Mutant(
        "the newest audit events deleted",
        (
            Edit(
                "signatures/audit_verify.py",
                "        if expected:\n            self._missing(1, expected",
                "        if False:\n            self._missing(1, expected",
            ),
            Edit("signatures/audit_verify.py", "            if sequence < expected:", "            if False:"),
        ),
        ("tests/unit/test_audit_chain.py::test_the_newest_events_deleted_contradict_the_head",),
    ),
)
