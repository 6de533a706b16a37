"""The trust policy that a process obeys: one holder, from which every check takes the policy when it needs it.

A next version is taken while the process runs, only from ``versions/N.json`` beside trust.toml and only as the version
that follows the one in force (signatures/trust_versions.py). Whatever else appears in the folder is refused: the
version in force stays in force, and ``refused`` says why.
"""

from datetime import datetime
from pathlib import Path

from constitution.errors import ConstitutionError, UntrustedError
from constitution.trust.trust_policy import TrustPolicy
from signatures.trust_files import find_version, load_trust, version_file
from signatures.trust_versions import HINT, follow


class TrustHolder:
    """Holds the policy in force.

    Args:
        policy: that the operator pinned, or the last one that it leads to (`load_trust`).
        path: its trust.toml; None: it came from elsewhere, and never changes.
    """

    def __init__(self, policy: TrustPolicy, path: Path | None = None) -> None:
        self._policy = policy
        self._path = path
        self._refused = ""
        self._refusals = 0
        self._judged: object = None
        self._doubted: object = None

    @classmethod
    def load(cls, path: Path) -> "TrustHolder":
        """Read the policy in force.

        Raises:
            ConstitutionError: it cannot be used.
        """
        return cls(load_trust(path), path)

    @property
    def policy(self) -> TrustPolicy:
        """The version in force."""
        return self._policy

    @property
    def refused(self) -> str:
        """Why the folder is not obeyed as it is; nothing while it says what is in force."""
        return self._refused

    @property
    def refusals(self) -> int:
        """How often something in the folder was refused."""
        return self._refusals

    def look(self, now: datetime) -> TrustPolicy | None:
        """Look at the folder; return the version that was taken, or None. Never raises for what it holds.

        What is refused is looked at a second time before it is reported: somebody may be writing it.
        """
        if self._path is None:
            return None
        stamp = self._stamp(self._path)
        if stamp == self._judged:
            return None
        before = self._policy
        try:
            while (found := find_version(self._path, self._policy.version + 1)) is not None:
                self._policy = follow(self._policy, found, now)
            self._compare(load_trust(self._path))
        except ConstitutionError as error:
            self._refuse(stamp, error)
        else:
            self._judged, self._refused = self._stamp(self._path), ""
        return self._policy if self._policy is not before else None

    def _compare(self, found: TrustPolicy) -> None:
        """Demand that a process which starts now would obey the same.

        Raises:
            UntrustedError: it would not.
        """
        held = self._policy
        if found.checksum == held.checksum:
            return
        if found.version < held.version:
            what = f"leads to version {found.version}, but {held.version} is in force: no version comes again"
        elif found.version == held.version:
            what = f"has other bytes than the version {held.version} that is in force"
        else:
            what = f"holds version {found.version}, which no signatures lead to from version {held.version}"
        raise UntrustedError(f"{self._path} {what}", hint=HINT)

    def _refuse(self, stamp: object, error: ConstitutionError) -> None:
        if stamp == self._doubted:
            self._judged = stamp
            self._refusals += 1
            self._refused = "; ".join([error.message, *(issue.message for issue in error.issues)])
        self._doubted = stamp

    def _stamp(self, path: Path) -> object:
        """Return what changes when trust.toml, or the version that is awaited, does."""
        return self._policy.version, *map(_state, (path, version_file(path, self._policy.version + 1)))


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
