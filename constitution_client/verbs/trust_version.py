"""Verbs ``trust new``, ``trust sign``, ``trust verify``, ``trust install``: the next version of the policy; offline."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from constitution_client.output import JsonOption, result
from constitution_client.verbs.signing_options import (
    OptionalKeyOption,
    PrintStatementOption,
    StatementOption,
    StatementSignatureOption,
    signing_options,
    signs_keylessly,
)

if TYPE_CHECKING:
    from constitution_client.keyless import KeylessOptions
    from constitution_client.trust_folder import Step

InForceOption = Annotated[
    Path | None,
    typer.Option("--trust", help="trust.toml of the policy in force (env: TRUST_FILE, or by ENVIRONMENT_FILE)."),
]


def new(
    directory: Annotated[Path, typer.Argument(help="The folder to make.")],
    trust: InForceOption = None,
    json: JsonOption = None,
) -> None:
    """Copy the policy in force into a new folder, version counted up, to be edited and then signed."""
    import shlex

    from constitution_client.settings import settings
    from constitution_client.trust_folder import TOML, begin_version

    made = begin_version(trust if trust is not None else settings().trust_path(), directory)
    file = directory / TOML
    result(
        {"trust": str(file), "version": made.version, "environment": made.environment},
        [
            f"version  {made.version} of {made.environment}, in {file}: edit it",
            f"next: constitution trust sign {shlex.quote(str(directory))} --reason 'why'",
        ],
        json,
    )


@signs_keylessly
def sign(
    directory: Annotated[Path, typer.Argument(help="The folder of the next version.")],
    key: OptionalKeyOption = None,
    reason: Annotated[str | None, typer.Option("--reason", help="Why; it stands in what you sign.")] = None,
    *,
    keyless: "KeylessOptions | None" = None,
    print_statement: PrintStatementOption = None,
    signature: StatementSignatureOption = None,
    statement: StatementOption = None,
    trust: InForceOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: JsonOption = None,
) -> None:
    """Show what the next version changes, and sign it. It takes a quorum of the old board and of the new one."""
    from constitution_client.trust_signing import sign_version

    options = signing_options(key, print_statement, signature, statement, keyless)
    sign_version(directory, options, reason, trust=trust, yes=yes, json=json)


def verify(
    directory: Annotated[Path, typer.Argument(help="A folder with trust.toml and versions/.")],
    pinned: Annotated[
        str | None, typer.Option("--pinned", metavar="CHECKSUM", help="What the first version must be.")
    ] = None,
    json: JsonOption = None,
) -> None:
    """Verify each step of a folder's versions, offline, and say who signed it. Exit 1 if one does not follow."""
    from constitution_client.trust_folder import chain

    steps = list(chain(directory))
    first, last = steps[0].policy, steps[-1].policy
    other = pinned is not None and pinned != first.checksum
    good = not other and not any(step.issues for step in steps)
    begins = f"begins   version {first.version}, {first.checksum}: "
    if pinned is None:
        begins += "compare it by another channel, or give --pinned"
    else:
        begins += f"NOT the pinned {pinned}" if other else "as pinned"
    result(
        {
            "verified": good,
            "environment": last.environment,
            "begins": {"version": first.version, "checksum": first.checksum, "pinned": pinned == first.checksum},
            "version": last.version,
            "checksum": last.checksum,
            "steps": [_json(step) for step in steps[1:]],
        },
        [
            f"{'verified' if good else 'NOT VERIFIED'}  version {last.version} of {last.environment}, {last.checksum}",
            begins,
            *(line for step in steps[1:] for line in _lines(step)),
        ],
        json,
    )
    raise typer.Exit(0 if good else 1)


def install(
    directory: Annotated[Path, typer.Argument(help="A folder with a signed version.")],
    trust: InForceOption = None,
    json: JsonOption = None,
) -> None:
    """Put a signed version in force on this machine. Refuses what does not follow; then nothing is written."""
    from constitution_client.settings import settings
    from constitution_client.trust_folder import install as put_in_force

    path = trust if trust is not None else settings().trust_path()
    old, now = put_in_force(directory, path)
    result(
        {"trust": str(path), "was": old.version, "version": now.version, "checksum": now.checksum},
        [
            f"in force  version {now.version} of {now.environment}, {now.checksum}; it was {old.version}",
            f"wrote     {path}",
        ],
        json,
    )


def _json(step: "Step") -> dict[str, Any]:
    return {
        "version": step.policy.version,
        "checksum": step.policy.checksum,
        "follows": not step.issues,
        "signed_by_old": sorted({one.by_old for one in step.found if one.by_old is not None}),
        "signed_by_new": sorted({one.by_new for one in step.found if one.by_new is not None}),
        "refused": [one.detail for one in step.found if one.detail],
        "issues": [issue.model_dump() for issue in step.issues],
    }


def _lines(step: "Step") -> list[str]:
    version = step.policy.version
    old = ", ".join(sorted({one.by_old for one in step.found if one.by_old is not None})) or "nobody"
    now = ", ".join(sorted({one.by_new for one in step.found if one.by_new is not None})) or "nobody"
    return [
        f"{'✓' if not step.issues else '✗'} version {version}, {step.policy.checksum}",
        f"    signed by {old} of version {version - 1}; by {now} of version {version}",
        *(f"    a signature counts for nothing: {one.detail}" for one in step.found if one.detail),
        *(f"    {issue.message} [{issue.code}]" for issue in step.issues),
    ]
