"""Who signed a document: both kinds of signature files, counted per person. A passkey signs statements only.

Only distinct maintainer ids count: one person with two keys, subkeys or both kinds is one. A bad extra signature is
reported, not fatal, not counted; so nobody can block a document by adding rubbish to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from constitution.errors import Issue, UntrustedError
from constitution.trust.trust_policy import Person, TrustPolicy
from signatures import openpgp, passkeys, sigstore
from signatures.detect import SignatureKind, detect

MAX_SIGNATURES = 16
_MARK = b"\xef\xbb\xbf"  # UTF-8's byte order mark


@dataclass(frozen=True, slots=True)
class SignatureFinding:
    """The result of one signature.

    Args:
        index: position of its file, from 0.
        kind: of the file; None when it is neither.
        person: whose it is, if it verified; a person without the role is named but not counted.
        counted: it verified, and by a person with the role.
        detail: who, or why not, in words.
    """

    index: int
    kind: SignatureKind | None
    person: str | None
    counted: bool
    detail: str


@dataclass(frozen=True, slots=True)
class SignatureReport:
    """Who signed. ``signers`` are distinct ids of maintainers, in the order of the trust policy."""

    signers: tuple[str, ...]
    findings: tuple[SignatureFinding, ...]

    def require(self, threshold: int) -> None:
        """Demand at least ``threshold`` signers.

        Raises:
            UntrustedError: with the reason of each signature that does not count.
        """
        if len(self.signers) >= threshold:
            return
        issues = [
            Issue(code="signature", path=f"/signatures/{finding.index}", message=finding.detail)
            for finding in self.findings
            if not finding.counted
        ]
        by = ", ".join(self.signers) or "nobody"
        raise UntrustedError(
            f"signed by {by}; the trust policy takes {threshold} maintainer{'s' if threshold > 1 else ''}",
            issues=issues,
            hint="have a maintainer of the trust policy sign exactly these bytes",
        )


def verify_document(document: bytes, signatures: Sequence[bytes], trust: TrustPolicy, now: datetime) -> SignatureReport:
    """Check every signature file over a document; never raises for a bad one.

    Args:
        document: exact bytes.
        signatures: files of either kind, told apart by content; those beyond the 16th are reported, not read.
        trust: the pinned trust policy.
        now: the time to judge by; aware.
    """
    findings: list[SignatureFinding] = []
    for index, data in enumerate(signatures):
        if index >= MAX_SIGNATURES:
            findings.append(SignatureFinding(index, None, None, False, f"is beyond the {MAX_SIGNATURES} that are read"))
            continue
        findings += _file(index, document, data, trust, now)
    counted = {finding.person for finding in findings if finding.counted}
    signers = tuple(person.id for person in trust.people if person.id in counted)
    return SignatureReport(signers, tuple(findings))


def _file(index: int, document: bytes, data: bytes, trust: TrustPolicy, now: datetime) -> list[SignatureFinding]:
    kind: SignatureKind | None = None
    try:
        kind = detect(data)
        if kind == "passkey":
            return [SignatureFinding(index, kind, None, False, "a passkey signs statements, no documents")]
        results = verify_bytes(document, data, trust.people, trust, now)
    except UntrustedError as error:
        return [SignatureFinding(index, kind, None, False, error.message)]
    findings = []
    for person_id, detail in results:
        person = trust.person(person_id) if person_id is not None else None
        counted = person is not None and "maintainer" in person.roles
        words = detail if counted or person is None else f"{detail}; {person.id} is no maintainer"
        if person_id is None and len(results) == 1 and (copy := _changed_copy(document, data, trust, now)):
            words = f"{detail}; {copy}"
        findings.append(SignatureFinding(index, kind, person_id, counted, words))
    return findings


def _changed_copy(document: bytes, signature: bytes, trust: TrustPolicy, now: datetime) -> str:
    """Return how a copy of the signed file was changed, where undoing that lets the signature verify; else nothing.

    A mail program, an editor or a version control's `autocrlf` does so. Only told: other bytes have another checksum.
    """
    text = document.removeprefix(_MARK)
    lines = text.replace(b"\r\n", b"\n")
    variants = {
        lines: "LF line ends" if b"\r\n" in text else "no byte order mark",
        lines.replace(b"\n", b"\r\n"): "CRLF line ends",
        _MARK + text: "a byte order mark",
    }
    for variant, name in variants.items():
        if variant == document:
            continue
        try:
            found = verify_bytes(variant, signature, trust.people, trust, now)
        except UntrustedError:
            continue
        if any(person is not None for person, _ in found):
            return f"it verifies with {name}: this copy was changed on its way, take the original file"
    return ""


def verify_bytes(
    data: bytes, signature: bytes, people: Sequence[Person], trust: TrustPolicy, now: datetime
) -> tuple[tuple[str | None, str], ...]:
    """Check one signature file of any kind over any bytes; return (person or None, detail) per signature in it.

    Raises:
        UntrustedError: the file as a whole is refused.
    """
    kind = detect(signature)
    if kind == "sigstore":
        found = sigstore.verify(data, signature, people, trust, now)
        return ((found.person, found.detail),)
    if kind == "passkey":
        asserted = passkeys.verify(data, signature, people, trust)
        return ((asserted.person.id, asserted.detail),)
    return tuple((s.person, s.detail) for s in openpgp.verify(data, signature, people, trust, now))
