"""Records signatures of a private Sigstore into `tests/data/sigstore/private`: `make record-bundles`.

Its five servers are started in a folder of their own. People log in at its issuer, and a CI job asks for its token as
GitHub's do; `constitution sign --sigstore` signs, and what that cannot make (statements of people who are not asked
here, a bundle of another kind) the same signer makes. Nothing is edited after it was signed. The keys of that Sigstore
are deleted with its folder: nobody can add to what is recorded.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlencode
from uuid import uuid4

from constitution.api import ChangeRequest
from constitution.checksum import checksum_of
from constitution.environment import Strategy
from constitution.release import Envelope, Kind
from constitution.trust.approval import ApprovalPredicate, BoardDecision
from constitution.trust.plan import Plan
from constitution_client.keyless import KeylessOptions, KeylessSigner
from constitution_client.settings import ClientSettings
from deploy.embedded.development import email_of
from deploy.embedded.sigstore.login import identity_token
from deploy.embedded.sigstore.servers import CI_URL, SIGSTORE_NAMES
from deploy.embedded.stack import Stack
from signatures import dsse
from signatures.statements import CHANGE_REQUEST, IN_TOTO, approval_bytes, change_request_bytes
from tests.recorded_bundles import CI, RECORDED, REPOSITORY, WORKFLOW
from tests.world.documents import document
from tests.world.files import CHECKOUT, ENVIRONMENT

LASTS: Final = timedelta(days=3650)  # of the document: tests put it live for as long
EVIDENCE: Final = checksum_of(b"what a gate saw")  # nobody's: these approvals are never loaded


class Recorder:
    """Signs with one private Sigstore.

    Args:
        settings: of its stack.
        scratch: for tokens.
    """

    def __init__(self, settings: Mapping[str, str], scratch: Path) -> None:
        self._settings = settings
        self._scratch = scratch

    def token(self, person: str) -> Path:
        """A file with a person's identity token."""
        file = self._scratch / f"{person}.token"
        file.touch(mode=0o600)
        file.write_text(identity_token(self._settings, person))
        return file

    def sign(self, data: Path, out: str, **environment: str) -> None:
        """Have the command line sign a file; who, the environment says."""
        target = RECORDED / out
        target.unlink(missing_ok=True)
        command = [sys.executable, "-m", "constitution_client", "sign", "--sigstore", str(data), "--out", str(target)]
        named = {"SIGSTORE_TRUST_CONFIG_FILE": self._settings["SIGSTORE_TRUST_CONFIG_FILE"], **environment}
        subprocess.run(  # noqa: S603 - our own program and files
            command, check=True, cwd=CHECKOUT, env=os.environ | named, stdout=subprocess.DEVNULL
        )

    def as_person(self, person: str) -> dict[str, str]:
        """The environment of somebody who has logged in."""
        return {"SIGSTORE_ID_TOKEN_FILE": str(self.token(person))}

    def as_job(self, repository: str, ref: str) -> dict[str, str]:
        """The environment of a CI job, as GitHub Actions sets it."""
        query = urlencode({"repository": repository, "ref": ref, "workflow": WORKFLOW})
        return {
            "GITHUB_ACTIONS": "true",
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{self._settings['SIGSTORE_ISSUER_URL']}/ci/token?{query}",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": self._settings["SIGSTORE_CI_SECRET"],
        }

    def signer(self, person: str) -> KeylessSigner:
        """Somebody who has logged in here."""
        configured = ClientSettings(sigstore_trust_config_file=Path(self._settings["SIGSTORE_TRUST_CONFIG_FILE"]))
        return KeylessSigner.log_in(KeylessOptions(token_file=self.token(person)), configured)

    def envelope(self, person: str, payload: bytes, payload_type: str) -> Envelope:
        """A statement of somebody, signed."""
        bundle = self.signer(person).sign(dsse.pae(payload_type, payload))
        return dsse.with_signature(payload, payload_type, email_of(person), bundle)

    def dsse_bundle(self, person: str, data: bytes) -> bytes:
        """A bundle of the other kind: an attestation that names a document, as `cosign attest` makes."""
        from sigstore.dsse import StatementBuilder, Subject

        digest = checksum_of(data).removeprefix("sha256:")
        statement = (
            StatementBuilder()
            .subjects([Subject(name="constitution", digest={"sha256": digest})])
            .predicate_type("https://example.org/reviewed/v1")
            .predicate({"reviewed": True})
            .build()
        )
        signer = self.signer(person)._signer  # the product signs no such thing
        return str(signer.sign_dsse(statement).to_json()).encode()


def record(settings: Mapping[str, str], scratch: Path) -> None:
    """Record everything anew."""
    shutil.copyfile(settings["SIGSTORE_TRUSTED_ROOT_FILE"], write("trusted_root.json", b""))
    recorder = Recorder(settings, scratch)
    now = datetime.now(UTC).replace(microsecond=0)
    file = write("document.json", document("1.0.0", None, expires_at=(now + LASTS).isoformat()))
    recorder.sign(file, "document.json.mara.sigstore.json", **recorder.as_person("mara"))
    recorder.sign(file, "document.json.olga.sigstore.json", **recorder.as_person("olga"))
    for name, (repository, ref) in CI.items():
        recorder.sign(file, f"document.json.{name}.sigstore.json", **recorder.as_job(repository, ref))
    write("document.json.mara.dsse.sigstore.json", recorder.dsse_bundle("mara", file.read_bytes()))
    other = write("other.txt", b"another artifact\n")
    recorder.sign(other, "other.txt.mara.sigstore.json", **recorder.as_person("mara"))

    checksum = checksum_of(file.read_bytes())
    request = ChangeRequest(id="CR-1", author="mara", checksum=checksum, reason="recorded")
    write_envelope("change_request.json", recorder.envelope("mara", change_request_bytes(request), CHANGE_REQUEST))
    for person in ("alva", "bruno"):
        predicate = ApprovalPredicate(
            kind=Kind.UPDATE,
            environment=ENVIRONMENT,
            checksum=checksum,
            version="1.0.0",
            previous=None,
            change_request="CR-1",
            evidence=EVIDENCE,
            plan=Plan(update_id=str(uuid4()), strategy="default", watch=Strategy(), rings=("default",)),
            decision=BoardDecision.APPROVE,
            reason="recorded",
            issued_at=now,
            expires_at=now + timedelta(days=7),
        )
        write_envelope(f"approval_{person}.json", recorder.envelope(person, approval_bytes(predicate), IN_TOTO))
    said = {
        "issuer": settings["SIGSTORE_ISSUER_URL"],
        "repository": f"{CI_URL}/{REPOSITORY}",
        "workflow": f"{CI_URL}/{REPOSITORY}/{WORKFLOW}",
        "recorded_at": datetime.now(UTC).replace(microsecond=0).isoformat(),
    }
    write("recorded.json", json.dumps(said, indent=1).encode() + b"\n")


def write(name: str, data: bytes) -> Path:
    """Write one recorded file."""
    (RECORDED / name).write_bytes(data)
    return RECORDED / name


def write_envelope(name: str, envelope: Envelope) -> None:
    """Write one recorded statement."""
    write(name, envelope.model_dump_json(indent=1).encode() + b"\n")


def main() -> None:
    """Record with servers of our own."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Stack(Path(folder) / "stack", SIGSTORE_NAMES, environment={}) as stack,
    ):
        record(stack.settings(), Path(folder))
    print(f"recorded into {RECORDED}")  # noqa: T201 - a command's answer


if __name__ == "__main__":
    main()
