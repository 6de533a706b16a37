"""``trust show``: the trust policy in words, and what is due about it."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from constitution_client.output import JsonOption, progress, result

if TYPE_CHECKING:
    from constitution.trust.trust_policy import Person, TrustPolicy
    from signatures.sigstore_root import RootEntry

app = typer.Typer(no_args_is_help=True, help="The trust policy: who may sign, approve and steer.")


@app.callback()
def _trust() -> None:
    """The trust policy: who may sign, approve and steer."""


@app.command()
def show(
    trust: Annotated[
        Path | None, typer.Option("--trust", help="trust.toml (env: TRUST_FILE, or by ENVIRONMENT_FILE).")
    ] = None,
    json: JsonOption = None,
) -> None:
    """Show people, roles, keys, thresholds and the pinned Sigstore root; offline. Warns where its review is overdue."""
    from constitution.trust.root_review import overdue_root
    from constitution_client.connections import trust_policy
    from constitution_client.settings import settings
    from signatures.sigstore_root import entries

    policy, now = trust_policy(settings(), trust), datetime.now(UTC)
    root = policy.sigstore
    listed = entries(policy.files[root.trusted_root]) if root is not None else ()
    warning = overdue_root(policy, now.date())
    result(
        {
            "environment": policy.environment,
            "version": policy.version,
            "thresholds": policy.thresholds.model_dump(exclude_none=True),
            "people": [_person(person) for person in policy.people],
            "sigstore": None if root is None else root.model_dump(mode="json"),
            "relying_party": None if policy.relying_party is None else policy.relying_party.model_dump(mode="json"),
            "root": [{**one.as_json(), "in_force": one.in_force(now)} for one in listed],
            "warnings": [warning] if warning else [],
        },
        _lines(policy, listed, now),
        json,
    )
    if warning:
        progress(f"warning: {warning}; docs/trust-policy.md says how to review it")


def _person(person: "Person") -> dict[str, Any]:
    return {
        "id": person.id,
        "name": person.name,
        "roles": list(person.roles),
        "openpgp": [key.fingerprint for key in person.openpgp],
        "sigstore": [entry.model_dump(exclude_none=True) for entry in person.sigstore],
        "passkeys": [key.fingerprint for key in person.passkeys],
    }


def _lines(policy: "TrustPolicy", listed: "tuple[RootEntry, ...]", now: datetime) -> list[str]:
    lines = [
        f"trust policy {policy.version} of {policy.environment}",
        "takes        "
        + ", ".join(f"{name} {number}" for name, number in policy.thresholds.model_dump(exclude_none=True).items()),
    ]
    for person in policy.people:
        lines.append(f"{person.id:<12} {person.name}: {', '.join(person.roles)}")
        lines += [f"  OpenPGP    {key.fingerprint}" for key in person.openpgp]
        for entry in person.sigstore:
            source = "".join(f", {name} {value}" for name in ("repository", "ref") if (value := getattr(entry, name)))
            lines.append(f"  Sigstore   {entry.identity} by {entry.issuer}{source}")
        lines += [f"  passkey    {key.fingerprint}" for key in person.passkeys]
    if policy.relying_party is not None:
        lines.append(f"passkeys     of {policy.relying_party.id}, on {', '.join(policy.relying_party.origins)}")
    if policy.sigstore is not None:
        review = policy.sigstore.review_by.isoformat() if policy.sigstore.review_by else "no day"
        lines.append(f"root         {policy.sigstore.trusted_root} sha256:{policy.sigstore.sha256}, review by {review}")
        lines += [f"  {one.describe(now)}" for one in listed]
    return lines
