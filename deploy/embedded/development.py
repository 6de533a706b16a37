"""The development environment of a stack: keys, trust policy, `environment.toml`, inbox, archive repository.

Trust comes from the ceremony that production uses too (`constitution_client.ceremony`). Existing files are kept: a
person may edit `environment.toml`; only the addresses of targets follow the ports of the stack.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.embedded.stack_directory import CHECKOUT, StackDirectory, write_private

if TYPE_CHECKING:
    from constitution_client.ceremony import NewPerson

ENVIRONMENT = "development"
PASSKEY_OF = "alva"
"""Who of the board has a passkey, in a stack with a private Sigstore."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds of the environment's waits: the strategy ``watched`` before and after publish, and sync."""

    baseline: int
    watch: int
    sync: int


PACE = Pace(baseline=40, watch=24, sync=15)


def environment_directory(directory: StackDirectory) -> Path:
    """Where the environment's files are."""
    return directory.path / ENVIRONMENT


def environment_file(directory: StackDirectory) -> Path:
    """Its `environment.toml`."""
    return environment_directory(directory) / "environment.toml"


def key_file(directory: StackDirectory, owner: str) -> Path:
    """The private key of a service or client, mode 0600."""
    return environment_directory(directory) / "keys" / f"{owner}.jwk"


def archive_repository(directory: StackDirectory) -> Path:
    """The git repository of the legal archive."""
    return directory.path / "archive"


def make(directory: StackDirectory, targets: Mapping[str, tuple[str, str]]) -> None:
    """Make what is missing. Idempotent.

    Args:
        directory: The stack.
        targets: Target id -> (kind, URL).
    """
    from constitution_client.ceremony import PEOPLE, make_trust  # noqa: PLC0415 - brings cryptography that servers do not need

    home = environment_directory(directory)
    home.mkdir(mode=0o700, exist_ok=True)
    (home / "inbox").mkdir(mode=0o700, exist_ok=True)
    if not (home / "trust").exists():
        root, issuer = _sigstore(directory)
        if root is None:
            make_trust(home, ENVIRONMENT)
        else:
            _make_trust_of_every_kind(directory, keyless(PEOPLE, issuer), root)
    write_environment(environment_file(directory), targets)
    _make_archive(archive_repository(directory))


def email_of(person: str) -> str:
    """The e-mail address of somebody of the environment: in their OpenPGP key, and at the private Sigstore's login."""
    return f"{person}@{ENVIRONMENT}.invalid"


def keyless(people: Sequence["NewPerson"], issuer: str) -> tuple["NewPerson", ...]:
    """Have people sign keylessly besides.

    Args:
        people: of a key ceremony.
        issuer: address of the login that knows them.
    """
    from constitution.trust.trust_policy import SigstoreIdentity  # noqa: PLC0415 - as above

    return tuple(
        replace(one, sigstore=(SigstoreIdentity(identity=email_of(one.id), issuer=issuer),), both=True)
        for one in people
    )


def passkey_file(directory: StackDirectory) -> Path:
    """The passkey of `PASSKEY_OF`, in software: its secret key, mode 0600."""
    return environment_directory(directory) / "keys" / f"{PASSKEY_OF}.passkey"


def _make_trust_of_every_kind(directory: StackDirectory, people: Sequence["NewPerson"], sigstore_root: bytes) -> None:
    """Have people sign by key, keylessly, and one of the board by passkey; the page is constitution-service's own."""
    from constitution.trust.passkey import RelyingParty  # noqa: PLC0415 - as above
    from constitution_client.ceremony import make_trust  # noqa: PLC0415 - as above
    from deploy.embedded.authenticator import Authenticator  # noqa: PLC0415 - as above

    authenticator = Authenticator()
    origin = f"http://localhost:{directory.port('constitution-service')}"
    make_trust(
        environment_directory(directory),
        ENVIRONMENT,
        people=[replace(one, passkeys=(authenticator.passkey,)) if one.id == PASSKEY_OF else one for one in people],
        sigstore_root=sigstore_root,
        relying_party=RelyingParty(id="localhost", origins=(origin,)),
    )
    authenticator.save(passkey_file(directory))


def _sigstore(directory: StackDirectory) -> tuple[bytes | None, str]:
    """The private Sigstore's root and its login's address; None where the stack was started without."""
    root = directory.settings.get("SIGSTORE_TRUSTED_ROOT_FILE")
    return (None if root is None else Path(root).read_bytes()), directory.settings.get("SIGSTORE_ISSUER_URL", "")


def write_environment(
    file: Path, targets: Mapping[str, tuple[str, str]], pace: Pace = PACE, gate: Path = CHECKOUT / "tests"
) -> None:
    """Write ``environment.toml``; of one that exists, only the targets' addresses are brought up to date.

    Args:
        file: where it is or will be.
        targets: Target id -> (kind, URL).
        pace: of a new one.
        gate: of a new one: the folder of the regression gate.
    """
    if file.exists():
        from constitution.environment import Environment  # noqa: PLC0415 - as above

        text = file.read_text(encoding="utf-8")
        for target in Environment.parse(text).targets:
            if target.id in targets:
                text = text.replace(f'"{target.url}"', f'"{targets[target.id][1]}"')
    else:
        blocks = (
            f'\n[[targets]]\nid = "{name}"\nkind = "{kind}"\nurl = "{url}"\n' for name, (kind, url) in targets.items()
        )
        text = TEMPLATE.format(environment=ENVIRONMENT, gate=toml_string(str(gate)), pace=pace) + "".join(blocks)
    write_private(file, text)


def toml_string(text: str) -> str:
    """Write a text as a TOML basic string: JSON's is one, except for DEL, which TOML wants escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", r"\u007f")


def _make_archive(repository: Path) -> None:
    """Make the archive's repository; bare, for a commit to one with a working tree reads an entry of every file."""
    from dulwich.errors import NotGitRepository  # noqa: PLC0415 - as above
    from dulwich.repo import Repo  # noqa: PLC0415 - as above

    try:
        Repo(str(repository)).close()
    except NotGitRepository:
        Repo.init_bare(str(repository), mkdir=not repository.exists(), default_branch=b"main").close()


TEMPLATE = """\
# The embedded stack's environment. Yours to edit; only the targets' addresses are kept up to date by the stack.
schema_version = 1
environment = "{environment}"
tenants = ["global"]
trust = "trust/trust.toml"
inbox = "inbox"
gate = {gate}
channel = "#release"

# A stack without traffic has nothing to watch: the verdict is `not_watched`, and says so.
[strategies.default]
watch_seconds = 0

# With traffic before and after publish; with less of it, a doubling may be undetectable. In so few seconds too few are
# refused to promise that a doubling of the share would be seen: it may raise the alarm, but no `ok` waits for it.
[strategies.watched]
watch_seconds = {pace.watch}
baseline_seconds = {pace.baseline}
scrape_seconds = 1.0

[[strategies.watched.quantities]]
quantity = "evaluations"
weight = 9

[[strategies.watched.quantities]]
quantity = "deny_share"
min_rate = 0.01
required = false

[deadlines]
sync = {pace.sync}
"""
