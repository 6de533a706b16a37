"""Reads a trust policy with the files that it names (signatures/regular_file.py reads the disk)."""

from pathlib import Path

from constitution.errors import InvalidRequestError
from constitution.trust.trust_policy import TrustPolicy, referenced_files
from signatures.openpgp import check_certificates
from signatures.regular_file import read_regular, read_regular_text

MAX_FILE = 1024 * 1024
HINT = "name a trust policy; the key ceremony makes one (docs/cli.md, init)"


def load_trust(path: Path) -> TrustPolicy:
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
    policy = TrustPolicy.parse(toml_text, files)
    check_certificates(policy)
    return policy
