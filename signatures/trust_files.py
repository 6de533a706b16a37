"""Reads a trust policy with the files that it names, and the signed versions beside it (signatures/regular_file.py).

``trust.toml`` pins where trust begins. ``versions/N.json`` holds version N whole, with the signatures over it, so the
bytes that are judged are the bytes that are obeyed, read once. In force is the last version that the pinned one leads
to (signatures/trust_versions.py).
"""

from datetime import UTC, datetime
from pathlib import Path

from constitution.errors import InvalidRequestError, UntrustedError
from constitution.trust.trust_policy import TrustPolicy, referenced_files
from constitution.trust.trust_version import TrustVersion
from signatures.regular_file import read_regular, read_regular_text
from signatures.trust_versions import HINT as CHAIN_HINT
from signatures.trust_versions import MAX_VERSION_BYTES, checked_policy, follow, policy_of, read_version

MAX_FILE = 1024 * 1024
HINT = "name a trust policy; the key ceremony makes one (docs/cli.md, init)"


def load_trust(path: Path) -> TrustPolicy:
    """Return the policy in force: trust.toml, or the last version beside it that is chained to it by signatures.

    Raises:
        InvalidRequestError: with every problem of a file.
        UntrustedError: a version beside it does not follow, or trust.toml is not what was signed as its version.
    """
    policy = read_trust(path)
    signed = find_version(path, policy.version)
    if signed is not None and policy_of(signed).checksum != policy.checksum:
        message = f"{path} is not version {policy.version} as {version_file(path, policy.version)} has it"
        raise UntrustedError(message, hint=CHAIN_HINT)
    return follow_versions(path, policy, datetime.now(UTC))


def follow_versions(path: Path, policy: TrustPolicy, now: datetime) -> TrustPolicy:
    """Return the last version that ``policy`` leads to by the files beside trust.toml; itself where there is none.

    Raises:
        InvalidRequestError: a version cannot be read.
        UntrustedError: a version does not follow the one before.
    """
    while (found := find_version(path, policy.version + 1)) is not None:
        policy = follow(policy, found, now)
    return policy


def version_file(path: Path, number: int) -> Path:
    """Return where a version lies beside trust.toml."""
    return path.resolve().parent / "versions" / f"{number}.json"


def find_version(path: Path, number: int) -> TrustVersion | None:
    """Read a version beside trust.toml; None where there is none.

    Raises:
        InvalidRequestError: it cannot be read, or is no version.
    """
    file = version_file(path, number)
    if not file.exists():
        return None
    return read_version(read_regular(file, MAX_VERSION_BYTES, hint=CHAIN_HINT), str(file))


def read_trust(path: Path) -> TrustPolicy:
    """Read trust.toml and the files beside it, and check all of them.

    Raises:
        InvalidRequestError: with every problem: of the policy, of a file that cannot be read or leaves the folder, of
            a certificate that is not exactly the pinned one.
    """
    toml_text = read_regular_text(path, MAX_FILE, hint=HINT)
    folder = path.resolve().parent
    files: dict[str, bytes] = {}
    for name in referenced_files(toml_text):
        try:
            file = (folder / name).resolve()
            missing = not file.exists()
        except (OSError, RuntimeError, ValueError) as error:  # a name too long, a loop of links, a folder closed to us
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise InvalidRequestError(f"{path} names {name[:80]!r}, which cannot be read: {reason}") from error
        if not file.is_relative_to(folder):
            raise InvalidRequestError(f"{path} names {name[:80]!r}, which leads outside its folder")
        if not missing:  # a missing one is reported by parse, with all the others
            files[name] = read_regular(file, MAX_FILE, hint=HINT)
    return checked_policy(toml_text, files)
