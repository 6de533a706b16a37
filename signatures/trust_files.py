"""Reads a trust policy with the files that it names (signatures/regular_file.py reads the disk)."""

from pathlib import Path

from constitution.errors import InvalidRequestError
from constitution.trust import TrustPolicy, referenced_files
from signatures.openpgp import check_certificates
from signatures.regular_file import read_regular

MAX_FILE = 1024 * 1024


def load_trust(path: Path) -> TrustPolicy:
    """Read trust.toml and the files beside it, and check all of them.

    Raises:
        InvalidRequestError: with every problem: of the policy, of a file that cannot be read or leaves the folder, of
            a certificate that is not exactly the pinned one.
    """
    text = _read(path)
    try:
        toml_text = text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"{path} is not UTF-8") from error
    folder = path.resolve().parent
    files: dict[str, bytes] = {}
    for name in referenced_files(toml_text):
        file = (folder / name).resolve()
        if not file.is_relative_to(folder):
            raise InvalidRequestError(f"{path} names {name}, which leads outside its folder")
        if file.exists():  # a missing one is reported by parse, with all the others
            files[name] = _read(file)
    policy = TrustPolicy.parse(toml_text, files)
    check_certificates(policy)
    return policy


def _read(path: Path) -> bytes:
    return read_regular(path, MAX_FILE, hint="name a trust policy; the key ceremony makes one (docs/cli.md, init)")
