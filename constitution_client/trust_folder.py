"""Folders of a trust policy: a copy for the next version, its signatures, its chain, and how it is put in force."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from constitution.errors import ConflictError, InvalidRequestError, Issue
from constitution.release import Envelope
from constitution.trust.trust_policy import TrustPolicy
from constitution.trust.trust_version import step_issues
from constitution_client.files import write_over
from signatures.trust_files import find_version, follow_versions, load_trust, read_trust, version_file
from signatures.trust_versions import Finding, findings, policy_of, write_version

TOML = "trust.toml"


@dataclass(frozen=True, slots=True)
class Step:
    """A version of a chain, judged.

    Args:
        policy: of the version.
        found: each of its envelopes; none for the version where the chain begins.
        issues: why it does not follow the version before; none where it does, and where the chain begins.
    """

    policy: TrustPolicy
    found: tuple[Finding, ...] = ()
    issues: tuple[Issue, ...] = ()

    @property
    def signers(self) -> tuple[str, ...]:
        """Who signed it, each once."""
        people = [one.by_old or one.by_new for one in self.found]
        return tuple(dict.fromkeys(person for person in people if person is not None))


def begin_version(path: Path, directory: Path) -> TrustPolicy:
    """Copy the policy in force into a new folder, with the next number, to be edited; return it.

    Args:
        path: trust.toml of the policy in force.
        directory: made here.

    Raises:
        InvalidRequestError: the folder exists, or the policy cannot be read.
    """
    policy = load_trust(path)
    if directory.exists():
        raise InvalidRequestError(f"{directory} exists and is not overwritten", hint="name a folder that is not there")
    for number in range(1, policy.version + 1):
        if (file := version_file(path, number)).is_file():
            write_over(version_file(directory / TOML, number), file.read_bytes())
    if find_version(directory / TOML, policy.version) is None:  # where the chain begins: pinned, not signed
        write_over(version_file(directory / TOML, policy.version), write_version(policy, ()))
    line = re.compile(rf"^version[ \t]*=[ \t]*{policy.version}\b", re.MULTILINE)
    _write(directory, line.sub(f"version = {policy.version + 1}", policy.toml_text, count=1), policy)
    made = read_trust(directory / TOML)
    if made.version != policy.version + 1:
        raise InvalidRequestError(
            f"the version in {directory / TOML} could not be counted up",
            hint=f"set version = {policy.version + 1} in it",
        )
    return made


def judged(path: Path, old: TrustPolicy, new: TrustPolicy) -> Step:
    """Judge the signatures that a folder holds over the step from ``old`` to ``new``.

    Args:
        path: trust.toml of the folder.
        old: in force.
        new: what the folder holds.

    Raises:
        ConflictError: it was changed after somebody had signed it.
    """
    version = find_version(path, new.version)
    found: tuple[Finding, ...] = ()
    if version is not None:
        file = version_file(path, new.version)
        if policy_of(version).checksum != new.checksum:
            raise ConflictError(
                f"{path} is not what {file} has signatures of: it was changed after it was signed",
                hint=f"rm {shlex.quote(str(file))}  # then everybody signs again",
            )
        found = findings(version, old, new, datetime.now(UTC))
    issues = step_issues(
        old,
        new,
        by_old=frozenset(one.by_old for one in found if one.by_old is not None),
        by_new=frozenset(one.by_new for one in found if one.by_new is not None),
    )
    return Step(new, found, issues)


def add_signature(path: Path, new: TrustPolicy, envelope: Envelope) -> None:
    """Write a signature into the folder's version."""
    before = find_version(path, new.version)
    envelopes = () if before is None else before.signatures
    write_over(version_file(path, new.version), write_version(new, (*envelopes, envelope)))


def chain(directory: Path) -> Iterator[Step]:
    """Judge a folder's versions, from the first that it holds to its trust.toml. The first one is judged by nobody.

    Raises:
        InvalidRequestError: a version cannot be read.
        ConflictError: trust.toml is not its version.
    """
    path = directory / TOML
    last = read_trust(path)
    first = last.version
    while version_file(path, first - 1).is_file():
        first -= 1
    old: TrustPolicy | None = None
    for number in range(first, last.version + 1):
        version = find_version(path, number)
        policy = last if number == last.version or version is None else policy_of(version)
        yield Step(policy) if old is None else judged(path, old, policy)
        old = policy


def install(directory: Path, path: Path) -> tuple[TrustPolicy, TrustPolicy]:
    """Put a folder's version in force at ``path``; return what was and what is in force.

    Versions are written first, each whole: a process that runs takes the next one from there alone.

    Raises:
        UntrustedError: it does not follow what is in force; nothing was written.
        ConflictError: nothing newer is in the folder.
    """
    old, new = load_trust(path), read_trust(directory / TOML)
    if new.version <= old.version:
        raise ConflictError(f"{directory} holds version {new.version}, but version {old.version} is in force")
    reached = follow_versions(directory / TOML, old, datetime.now(UTC))
    if reached.checksum != new.checksum:
        raise InvalidRequestError(
            f"the versions in {directory} lead from {old.version} to {reached.version}, not to its trust.toml",
            hint=f"constitution trust verify {shlex.quote(str(directory))}",
        )
    for number in range(old.version, new.version + 1):
        file, target = version_file(directory / TOML, number), version_file(path, number)
        if file.is_file() and not target.exists():
            write_over(target, file.read_bytes())
    _write(path.resolve().parent, new.toml_text, new, name=path.resolve().name)
    return old, new


def _write(directory: Path, toml_text: str, policy: TrustPolicy, name: str = TOML) -> None:
    """Write the files, and trust.toml last."""
    for file, data in policy.files.items():
        write_over(directory / file, data)
    write_over(directory / name, toml_text.encode())
