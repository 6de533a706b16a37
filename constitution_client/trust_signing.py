"""A person signs the next version of the trust policy: look first, then sign."""

import shlex
from datetime import UTC, datetime
from pathlib import Path

from constitution.errors import ConflictError, InvalidRequestError, UntrustedError
from constitution.trust.trust_changes import changes
from constitution.trust.trust_policy import TrustPolicy
from constitution.trust.trust_version import TrustVersionPredicate
from constitution_client.connections import trust_policy
from constitution_client.output import one_line, progress, result
from constitution_client.prompting import confirm
from constitution_client.settings import UsageError, settings
from constitution_client.signing import Signing, SigningOptions
from constitution_client.trust_folder import TOML, add_signature, judged
from signatures.statements import IN_TOTO
from signatures.trust_files import read_trust
from signatures.trust_versions import trust_version_bytes, verify_trust_version


def sign_version(
    directory: Path, options: SigningOptions, reason: str | None, *, trust: Path | None, yes: bool, json: bool | None
) -> None:
    """Show what the version changes, ask, sign, and write the signature into the folder.

    Raises:
        UntrustedError: the key is of nobody whose signature counts for this step.
        InvalidRequestError: the folder does not hold the version after the one in force.
        ConflictError: it was changed after somebody had signed it, or this person has signed.
    """
    path = directory / TOML
    old, new = trust_policy(settings(), trust), read_trust(path)
    before = judged(path, old, new)
    if wrong := [issue for issue in before.issues if issue.code.endswith(("-version", "-environment"))]:
        raise InvalidRequestError(
            f"{path} is not the version after the one in force", issues=wrong, hint="constitution trust show"
        )
    signing = _signer(options, old, new)
    person = None if signing.person is None else signing.person.id
    if person in before.signers:
        raise ConflictError(f"{person} has signed it", hint=f"constitution trust verify {shlex.quote(str(directory))}")
    policy = new if person is None or new.person(person) is not None else old
    now = datetime.now(UTC)
    stated = signing.stated(lambda envelope: verify_trust_version(envelope, policy, now))
    said = TrustVersionPredicate(
        environment=new.environment,
        version=new.version,
        checksum=new.checksum,
        previous=old.checksum,
        reason=_reason(reason, stated),
        issued_at=now.replace(microsecond=0) if stated is None else stated.issued_at,
    )
    payload = trust_version_bytes(said)
    signing.check(payload, IN_TOTO)
    for line in (
        signing.begins,
        f"  version {new.version} of the trust policy of {new.environment}, after version {old.version}",
        f"  {new.checksum}, because: {said.reason}",
        *(f"  {line}" for line in changes(old, new)),
    ):
        progress(one_line(line))
    if (question := signing.asks("version")) is not None:
        confirm(question, yes=yes)
    envelope = signing.envelope(payload, IN_TOTO, json, version=new.version)
    if envelope is None:
        return
    add_signature(path, new, envelope)
    _tell(directory, old, new, json)


def _signer(options: SigningOptions, old: TrustPolicy, new: TrustPolicy) -> Signing:
    """Read who signs: somebody of the new version, or somebody whom it removes."""
    try:
        signing = Signing.begin(options, new)
    except UntrustedError as error:
        try:
            signing = Signing.begin(options, old)
        except UntrustedError:
            raise error from None
    person = signing.person
    if person is not None:
        roles = {role for policy in (old, new) if (known := policy.person(person.id)) for role in known.roles}
        if not roles & {"board", "root"}:
            raise UntrustedError(f"{person.id} is neither of the board nor of the root: the signature would not count")
    return signing


def _reason(reason: str | None, stated: TrustVersionPredicate | None) -> str:
    chosen = reason if stated is None else stated.reason
    if not chosen:
        raise UsageError("say why with --reason")
    return chosen


def _tell(directory: Path, old: TrustPolicy, new: TrustPolicy, json: bool | None) -> None:
    after = judged(directory / TOML, old, new)
    named = shlex.quote(str(directory))
    result(
        {
            "version": new.version,
            "checksum": new.checksum,
            "signed_by": list(after.signers),
            "complete": not after.issues,
            "missing": [issue.message for issue in after.issues],
        },
        [
            f"version  {new.version} of {new.environment}, {new.checksum}",
            f"signed   {', '.join(after.signers)}",
            *(f"missing  {issue.message}" for issue in after.issues),
            f"next: constitution trust sign {named} --reason 'why'  # by the next person"
            if after.issues
            else f"next: constitution trust install {named}",
        ],
        json,
    )
