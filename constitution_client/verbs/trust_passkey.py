"""The verb ``trust passkey``, offline: what a trust policy must say of a new passkey."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from constitution_client.output import JsonOption, result


def passkey(
    enrolment: Annotated[Path, typer.Argument(help="The file that the page /passkeys saved: ID.passkey.json.")],
    relying_party: Annotated[
        str | None,
        typer.Option("--relying-party", help="The domain name that it is for; default: that of the trust policy."),
    ] = None,
    trust: Annotated[
        Path | None, typer.Option("--trust", help="trust.toml (env: TRUST_FILE, or by ENVIRONMENT_FILE).")
    ] = None,
    json: JsonOption = None,
) -> None:
    """Read a passkey that a browser has just made: its fingerprint to compare, and its entry for trust.toml."""
    from constitution_client.ceremony import passkeys_toml, relying_party_toml
    from constitution_client.connections import trust_policy
    from constitution_client.files import read_bytes
    from constitution_client.settings import UsageError, settings
    from signatures.passkeys import read_enrolment

    name = relying_party
    if name is None:
        pinned = trust_policy(settings(), trust).relying_party
        if pinned is None:
            raise UsageError(
                "the trust policy pins no relying party, so nothing says what the passkey must be for",
                hint=f"constitution trust passkey {shlex.quote(str(enrolment))} --relying-party example.org",
            )
        name = pinned.id
    found = read_enrolment(read_bytes(enrolment, what="enrolment"), name)
    origin = found.relying_party.origins[0]
    result(
        {
            "fingerprint": found.passkey.fingerprint,
            "credential": found.passkey.credential,
            "public_key": found.passkey.public_key,
            "relying_party": name,
            "origin": origin,
        },
        [
            f"fingerprint  {found.passkey.fingerprint}",
            f"made for     {name}, on {origin}",
            "",
            "compare the fingerprint with its owner by another channel; then, in trust.toml, under their [[people]]:",
            f"  {passkeys_toml([found.passkey])}",
            "and once, below its version:",
            f"  {relying_party_toml(found.relying_party)}",
        ],
        json,
    )
