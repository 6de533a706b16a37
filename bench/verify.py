"""What verifying takes: each kind of signature beside the bare library call, and the whole step ``verify_signatures``.

Ours and the bare call in turn, on the same bytes, in this process. The bare call is what the library alone does, with
its keys and roots parsed before: no policy of ours, no check of form, nobody's role. Of the step the lower bound is
the bare call and the two reads, one after the other, that no worker can leave out.
"""

import asyncio
import base64
import hashlib
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pysequoia
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from joserfc import jwk, jwt
from webauthn import verify_authentication_response

from activities.preconditions import Preconditions
from bench.numbers import summary
from bench.results import DIRECTORY, measuring
from constitution.release import Envelope
from deploy.demo.screen import Screen
from deploy.embedded.stack import Stack
from signatures import dsse, openpgp, statements, tokens
from signatures.attestations import sign_attestation, verify_attestation
from signatures.sigstore import _verifier
from signatures.verify import verify_document
from tests.integration.activity_support import make_config, run, update_plan_of
from tests.recorded_bundles import Recorded
from tests.unit import test_attestations, test_openpgp, test_passkeys
from tests.unit.keyring import NOW, document, keyring
from tests.unit.test_current import current
from tests.world.author import Author
from tests.world.files import EnvironmentFiles

DOCUMENT: Final = json.dumps(document(), indent=2).encode()
SAMPLES_A_ROUND: Final = 40


@dataclass(frozen=True, slots=True)
class Pair:
    """Ours and the bare call; each raises, or returns something true."""

    ours: Callable[[], Any]
    bare: Callable[[], Any]


def _openpgp(profile: Any) -> Pair:
    tsk = pysequoia.Tsk.generate(user_id="Bench <b@example.org>", profile=profile)
    cert = tsk.extract_certificate()
    trust = test_openpgp.trust_in(bytes(cert), "bench", cert.fingerprint)
    signature = openpgp.sign_detached(DOCUMENT, bytes(tsk))

    def bare() -> Any:
        sig = pysequoia.Sig.from_bytes(signature)
        return pysequoia.verify(bytes=DOCUMENT, store=lambda _: [cert], signature=sig).valid_sigs

    return Pair(lambda: verify_document(DOCUMENT, [signature], trust, NOW).signers, bare)


def _sigstore() -> Pair:
    from sigstore.models import Bundle  # noqa: PLC0415 - late: its import takes a second
    from sigstore.verify import policy  # noqa: PLC0415

    recorded = Recorded()
    bundle, trust, verifier = recorded.bundle("mara"), recorded.trust(), _verifier(recorded.root)
    identity = policy.Identity(identity=recorded.identity("mara").identity, issuer=recorded.said["issuer"])

    def bare() -> bool:
        verifier.verify_artifact(recorded.document, Bundle.from_json(bundle), identity)
        return True

    return Pair(lambda: verify_document(recorded.document, [bundle], trust, recorded.now()).signers, bare)


def _passkey() -> Pair:
    statement, trust = test_passkeys.STATEMENT, test_passkeys.TRUST
    assertion = test_passkeys.ALVA.sign(statement)
    envelope, key = test_passkeys.sealed(assertion), test_passkeys.ALVA.passkey.cose()
    party = trust.relying_party
    if party is None:
        raise ValueError("the policy pins no relying party")
    credential, challenge = json.loads(assertion), hashlib.sha256(statement).digest()
    return Pair(
        lambda: dsse.verify_person(envelope, trust, test_passkeys.now()),
        lambda: verify_authentication_response(
            credential=credential,
            expected_challenge=challenge,
            expected_rp_id=party.id,
            expected_origin=[*party.origins],
            credential_public_key=key,
            credential_current_sign_count=0,
            require_user_verification=True,
        ),
    )


def _sealed(envelope: Envelope, public: bytes, ours: Callable[[], Any]) -> Pair:
    """An envelope by an Ed25519 key; bare: base64, pre-authentication encoding, and the signature."""

    def bare() -> bool:
        message = dsse.pae(envelope.payloadType, base64.b64decode(envelope.payload))
        Ed25519PublicKey.from_public_bytes(public).verify(base64.b64decode(envelope.signatures[0].sig), message)
        return True

    return Pair(ours, bare)


def pairs() -> dict[str, Pair]:
    """Return each kind of signature, with genuine ones of now."""
    ring = keyring()
    released = current().statement
    gate = sign_attestation(test_attestations.gate(), ring.assessor.id, ring.assessor.private_key)
    token = tokens.mint(ring.worker, environment="development", scopes=["load:write"], now=NOW)
    public = jwk.OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": ring.worker.public_text()})
    raw = {key.id: key.private_key.public_key().public_bytes_raw() for key in (ring.service, ring.assessor)}
    return {
        "OpenPGP, version 4": _openpgp(pysequoia.Profile.RFC4880),
        "OpenPGP, version 6": _openpgp(pysequoia.Profile.RFC9580),
        "Sigstore bundle": _sigstore(),
        "passkey's decision": _passkey(),
        "release statement": _sealed(
            released, raw[ring.service.id], lambda: statements.verify_release(released, ring.trust)
        ),
        "attestation": _sealed(gate, raw[ring.assessor.id], lambda: verify_attestation(gate, ring.trust)),
        "token": Pair(
            lambda: tokens.verify(token, ring.trust, environment="development", scope="load:write", now=NOW),
            lambda: jwt.decode(token, public, algorithms=["Ed25519"]),
        ),
    }


def _taken(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    if not call():
        raise ValueError("a genuine signature was not accepted")
    return time.perf_counter() - began


async def _timed(call: Callable[[], Awaitable[Any]]) -> float:
    began = time.perf_counter()
    await call()
    return time.perf_counter() - began


async def _step(stack: Stack, samples: int) -> dict[str, list[float]]:
    """The whole activity against a real constitution-service, and its lower bound."""
    settings = stack.settings()
    author = Author(EnvironmentFiles(Path(settings["ENVIRONMENT_FILE"]).parent), settings["CONSTITUTION_SERVICE_URL"])
    try:
        signed = await author.next_draft()
        signature = author.sign(signed)
        await author.worker.push(signed, [signature])
        update = update_plan_of(signed, "CR-1", first=True)
        step = Preconditions(service=author.worker, config=make_config(author.files, DIRECTORY / "scratch"))
        mara = next(person for person in author.files.trust.people if person.id == "mara").openpgp[0]
        cert = pysequoia.Cert.from_bytes(author.files.trust.files[mara.certificate])

        async def bare() -> None:
            found = await author.worker.artifact(update.checksum)
            files = await author.worker.artifact_signatures(update.checksum)
            pysequoia.verify(bytes=found, store=lambda _: [cert], signature=pysequoia.Sig.from_bytes(files[0]))

        taken: dict[str, list[float]] = {"ours": [], "bare": []}
        for number in range(samples + 1):
            ours = await _timed(lambda: run(step.verify_signatures, update))
            lower = await _timed(bare)
            if number:  # the first of each is not what is measured
                taken["ours"].append(ours)
                taken["bare"].append(lower)
        return taken
    finally:
        await author.aclose()


def measure(screen: Screen, *, rounds: int) -> None:
    """Verify each kind so many times; store ``verify``."""
    samples = rounds * SAMPLES_A_ROUND
    stack = Stack(DIRECTORY / "verify-stack", environment={})
    stack.erase()
    with measuring("verify") as result:
        found: dict[str, dict[str, list[float]]] = {}
        for name, pair in pairs().items():
            _taken(pair.ours)
            _taken(pair.bare)
            turns = [(_taken(pair.ours), _taken(pair.bare)) for _ in range(samples)]
            found[name] = {"ours": [ours for ours, _ in turns], "bare": [bare for _, bare in turns]}
        try:
            with screen.timed("servers and constitution-service"):
                stack.start("constitution-service")
            found["the step verify_signatures"] = asyncio.run(_step(stack, samples))
        finally:
            stack.erase()
        result["samples"], result["at"] = samples, datetime.now(UTC).isoformat()
        result["summary"] = [
            {
                "kind": name,
                "ours": dict(summary(taken["ours"])),
                "bare": dict(summary(taken["bare"])),
                "ratio": summary(taken["ours"])["p50"] / summary(taken["bare"])["p50"],
            }
            for name, taken in found.items()
        ]
