"""Puts next versions of an environment's trust policy in force, by what the command line does."""

import re
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from constitution.trust.trust_policy import TrustPolicy
from constitution.trust.trust_version import TrustVersionPredicate
from constitution_client import trust_folder
from signatures import dsse
from signatures.openpgp import generate_key
from signatures.statements import IN_TOTO
from signatures.tokens import ClientKey
from signatures.trust_files import load_trust, read_trust
from signatures.trust_versions import trust_version_bytes
from tests.world.files import EnvironmentFiles

BOARD = ("alva", "bruno")


def path_of(files: EnvironmentFiles) -> Path:
    return files.directory / "trust" / "trust.toml"


def next_version(
    files: EnvironmentFiles,
    *edits: tuple[str, str],
    certificates: Mapping[str, bytes] | None = None,
    by: Sequence[str] = BOARD,
) -> TrustPolicy:
    """Make, edit, sign and install the next version; return it."""
    folder = files.directory / "next"
    old = load_trust(path_of(files))
    trust_folder.begin_version(path_of(files), folder)
    text = (folder / "trust.toml").read_text()
    for before, after in edits:
        assert before in text, before
        text = text.replace(before, after, 1)
    (folder / "trust.toml").write_text(text)
    for name, data in (certificates or {}).items():
        (folder / name).write_bytes(data)
    new = read_trust(folder / "trust.toml")
    said = TrustVersionPredicate(
        environment=new.environment,
        version=new.version,
        checksum=new.checksum,
        previous=old.checksum,
        reason="the test changes it",
        issued_at=datetime.now(UTC),
    )
    for person in by:
        envelope = dsse.sign_openpgp(trust_version_bytes(said), IN_TOTO, files.tsk(person))
        trust_folder.add_signature(folder / "trust.toml", new, envelope)
    trust_folder.install(folder, path_of(files))
    shutil.rmtree(folder)
    return new


def entry(files: EnvironmentFiles, table: str, name: str) -> str:
    """Return the text of somebody's or something's entry in trust.toml, to be edited away."""
    text = path_of(files).read_text()
    found = re.search(rf'\[\[{table}\]\]\nid = "{name}"\n(?:[^\[\n].*\n|\n)*', text + "\n")
    assert found is not None, (table, name)
    return found[0].rstrip("\n")


def new_key(files: EnvironmentFiles, person: str) -> tuple[str, dict[str, bytes]]:
    """Make somebody another OpenPGP key, with which they sign from now on; return its entry and its file."""
    secret, certificate, fingerprint = generate_key(f"{person} <{person}@example.org>")
    (files.directory / "keys" / f"{person}.tsk").write_bytes(secret)
    file = f"certificates/{person}-new.asc"
    return f'{{ fingerprint = "{fingerprint}", certificate = "{file}" }}', {file: certificate}


def new_client_key(files: EnvironmentFiles, name: str) -> ClientKey:
    """Make a service, client or assessor another key, used from now on."""
    key = ClientKey.generate(name)
    files.key_file(name).write_text(key.to_json())
    return key
