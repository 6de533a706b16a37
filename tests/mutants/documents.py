"""Defences of what is read and signed as a document."""

from typing import Final

from tests.mutants.mutant import Mutant
from tests.world.without import Edit

ATTACKS: Final = "tests/unit/test_attacks.py"
OPENPGP: Final = "tests/unit/test_openpgp.py"
BUNDLES: Final = "tests/unit/test_recorded_bundles.py"
SIGNED: Final = Edit(
    "signatures/openpgp.py", "signing_key = _check(document, packet, cert)", "signing_key = key.fingerprint"
)
ANYBODY: Final = """        self.found = Signatory(self._people[0].id, "", "")
        return
        raise VerificationError(elsewhere or"""
WITHOUT_SCTS: Final = """    from sigstore.verify import verifier as library
    library.verify_sct = lambda *_, **__: None
    if trust.sigstore is None or not any"""

WITHOUT_CONSISTENCY: Final = """    from sigstore.verify import verifier as library
    library._validate_hashedrekord_v001_entry_body = lambda *_: None
    library._validate_hashedrekord_v002_entry_body = lambda *_: None
    if trust.sigstore is None or not any"""
ANY_BUNDLE: Final = """        checked = _verifier(in_force(root, begun_by=min(times, default=now), now=now))
        if parsed._dsse_envelope is not None:
            checked.verify_dsse(parsed, candidates)
        else:
            checked.verify_artifact(document, parsed, candidates)
"""


def judged_at(case: str) -> str:
    """The test of one recorded signature that must not count."""
    return f"{OPENPGP}::test_what_must_not_count_is_refused_with_its_reason[{case}]"


def verified_as(expression: str) -> Edit:
    """A verification that looks at something else than the exact bytes."""
    old = '    kind = detect(signature)\n    if kind == "sigstore":'
    return Edit("signatures/verify.py", old, f"    import json\n    data = {expression}\n{old}")


DOCUMENTS: Final = (
    Mutant("one byte changed", (SIGNED,), (f"{ATTACKS}::test_one_changed_byte_leaves_no_signature",)),
    Mutant(
        "JSON written anew",
        (verified_as("json.dumps(json.loads(data), indent=2).encode() if data[:1] == b'{' else data"),),
        (f"{ATTACKS}::test_a_document_of_the_same_meaning_in_other_bytes_has_no_signature",),
    ),
    Mutant(
        "other line ends, a byte order mark",
        (verified_as("data.removeprefix(b'\\xef\\xbb\\xbf').replace(b'\\r\\n', b'\\n')"),),
        (f"{OPENPGP}::test_a_copy_with_other_line_ends_is_named_and_never_accepted",),
    ),
    Mutant(
        "a key twice in one object",
        (
            Edit(
                "constitution/strict_json.py",
                '_refuse("duplicate-key", f"the key {key[:64]!a} stands twice in one object")',
                "continue",
            ),
        ),
        ("tests/unit/test_document.py::test_bytes_that_are_no_document_are_refused",),
    ),
    Mutant(
        "an older version",
        (
            Edit(
                "constitution/policy/validity.py",
                "Version.parse(document.version) <= Version.parse(highest_version)",
                "Version.parse(document.version) == Version.parse(highest_version)",
            ),
        ),
        ("tests/unit/test_validity.py::test_an_update_is_held_to_every_rule[situation2-expected2]",),
    ),
    Mutant(
        "the same version with other bytes",
        (
            Edit(
                "constitution/policy/validity.py",
                "Version.parse(document.version) <= Version.parse(highest_version)",
                "Version.parse(document.version) < Version.parse(highest_version)",
            ),
        ),
        ("tests/unit/test_validity.py::test_an_update_is_held_to_every_rule[situation1-expected1]",),
    ),
    Mutant(
        "another document's signature",
        (SIGNED,),
        (f"{ATTACKS}::test_the_signature_of_another_document_is_none_of_this_one",),
    ),
    Mutant(
        "oversize",
        (Edit("constitution/strict_json.py", "if len(data) > max_bytes:", "if False:"),),
        (f"{ATTACKS}::test_a_document_that_readers_could_read_in_two_ways_is_none[oversize]",),
    ),
    Mutant(
        "deep nesting",
        (Edit("constitution/strict_json.py", "if depth > max_depth:", "if False:"),),
        (f"{ATTACKS}::test_a_document_that_readers_could_read_in_two_ways_is_none[deep]",),
    ),
    Mutant(
        "NUL",
        (
            Edit(
                "constitution/strict_json.py",
                "value = json.loads(\n            text,",
                "value = json.loads(\n            text.replace(chr(0), ''),",
            ),
        ),
        (f"{ATTACKS}::test_a_document_that_readers_could_read_in_two_ways_is_none[NUL inside]",),
    ),
    Mutant(
        "two files in one",
        (
            Edit(
                "constitution/strict_json.py",
                "value = json.loads(\n            text, object",
                "value = json.loads(\n            text[: json.JSONDecoder().raw_decode(text)[1]], object",
            ),
        ),
        (f"{ATTACKS}::test_a_document_that_readers_could_read_in_two_ways_is_none[two in one file]",),
    ),
    Mutant(
        "a document of another environment",
        (Edit("constitution/policy/validity.py", "if document.environment != environment:", "if False:"),),
        ("tests/unit/test_validity.py::test_an_update_is_held_to_every_rule[situation0-expected0]",),
    ),
    Mutant(
        "SHA-1",
        (SIGNED,),
        (judged_at("sha1.sig-grace.asc-grace-uses SHA1"),),
    ),
    Mutant(
        "RSA of 1024 bits",
        (
            SIGNED,
            Edit(
                "signatures/openpgp.py",
                'self._revoked = bool(_sequoia(lambda: merged.is_revoked, "the certificate is not accepted"))',
                "self._revoked = False",
            ),
            Edit(
                "signatures/openpgp.py",
                '_sequoia(lambda: merged.expiration, "the certificate is not accepted")',
                "None",
            ),
        ),
        (judged_at("rsa1024.sig-weak.asc-weak-RSA1024 is not considered secure"),),
    ),
    Mutant(
        "a revoked or expired key or subkey",
        (
            SIGNED,
            Edit(
                "signatures/openpgp.py",
                "refusal = cert.refusal(signing_key, now)\n        if",
                "refusal = None\n        if",
            ),
        ),
        (
            judged_at("revoked.sig-rex-revoked.asc-rex-is revoked"),
            judged_at("subkey.sig-sue-revoked.asc-sue-signing subkey is revoked"),
            judged_at("expired-key.sig-elsa.asc-elsa-expired at 2025-01-31"),
        ),
    ),
    Mutant(
        "a signature dated in the future",
        (Edit("signatures/openpgp.py", "if packet.created > now + CLOCK_SKEW:", "if False:"), SIGNED),
        (judged_at("future.sig-grace.asc-grace-is dated in the future"),),
    ),
    Mutant(
        "a signature of text mode",
        (
            Edit(
                "signatures/openpgp.py",
                "packet.tag != Tag.Signature or packet.kind != SignatureType.Binary",
                "packet.tag != Tag.Signature",
            ),
        ),
        (judged_at("text.sig-grace.asc-grace-not a document signature"),),
    ),
    Mutant(
        "two armor blocks",
        (Edit("signatures/openpgp.py", "if data.count(_ARMOR_LINE) != 1:", "if False:"),),
        (f"{OPENPGP}::TestSignatureFiles::test_several_armor_blocks_are_refused",),
    ),
    Mutant(
        "an unlisted identity",
        (
            Edit(
                "signatures/sigstore.py",
                "        raise VerificationError(elsewhere or",
                ANYBODY,
            ),
        ),
        (f"{BUNDLES}::test_somebody_whom_the_policy_does_not_list_counts_for_nobody",),
    ),
    Mutant(
        "the same address at another issuer",
        (Edit("signatures/sigstore.py", "identity=entry.identity, issuer=entry.issuer)", "identity=entry.identity)"),),
        (f"{BUNDLES}::test_the_same_address_of_another_issuer_or_of_none_is_somebody_else",),
    ),
    Mutant(
        "an empty issuer",
        (Edit("signatures/sigstore.py", "if not entry.identity or not entry.issuer:", "if False:"),),
        ("tests/unit/test_sigstore.py::test_an_empty_issuer_never_skips_the_check",),
    ),
    Mutant(
        "another repository or ref of the same CI identity",
        (
            Edit("signatures/sigstore.py", "if entry.repository is not None:", "if False:"),
            Edit("signatures/sigstore.py", "if entry.ref is not None:", "if False:"),
        ),
        (f"{BUNDLES}::test_a_workflow_that_others_call_counts_by_the_repository_that_calls_it",),
    ),
    Mutant(
        "a retired entry of the root",
        (Edit("signatures/sigstore.py", "in_force(root, begun_by=min(times, default=now), now=now)", "root"),),
        (f"{BUNDLES}::test_a_retired_entry_of_the_root_is_not_trusted",),
    ),
    Mutant(
        "a certificate without a log's promise (SCT)",
        (Edit("signatures/sigstore.py", "    if trust.sigstore is None or not any", WITHOUT_SCTS),),
        (f"{BUNDLES}::test_a_certificate_that_no_log_has_promised_to_hold_is_refused",),
    ),
    Mutant(
        "the log entry of another artifact",
        (Edit("signatures/sigstore.py", "    if trust.sigstore is None or not any", WITHOUT_CONSISTENCY),),
        (f"{BUNDLES}::test_the_log_entry_of_another_artifact_or_signature_is_refused",),
    ),
    Mutant(
        "a DSSE bundle in the place of a message signature",
        (
            Edit(
                "signatures/sigstore.py",
                'if not isinstance(content, dict) or "messageSignature" not in content or "dsseEnvelope" in content:',
                "if not isinstance(content, dict):",
            ),
            Edit(
                "signatures/sigstore.py",
                "        _verifier(in_force(root, begun_by=min(times, default=now), now=now)).verify_artifact(\n"
                "            document, parsed, candidates\n"
                "        )\n",
                ANY_BUNDLE,
            ),
        ),
        (f"{BUNDLES}::test_an_attestation_that_names_the_document_is_no_signature_of_it",),
    ),
)
