"""The parts of the client that are installed by choice, and how a verb says that its own is missing.

The client alone reads, signs, pushes and asks; four libraries make up three quarters of a full installation and serve
some verbs only, so each is an extra of the distribution (docs/adr/0019-parts.md).
"""

_PART_OF = {
    "cel_expr_python": "rules",
    "google": "rules",  # protobuf
    "jsonschema": "rules",
    "re2": "rules",
    "sigstore": "sigstore",
    "temporalio": "temporal",
    "webauthn": "passkeys",
}
_PURPOSE = {
    "passkeys": "checks signatures of passkeys",
    "rules": "reads the rules of a constitution",
    "sigstore": "makes or checks Sigstore signatures",
    "temporal": "talks to Temporal",
}


def missing_part(error: ModuleNotFoundError) -> tuple[str, str] | None:
    """Return what this command does that is not installed, and the command that installs it; None for other modules."""
    part = _PART_OF.get((error.name or "").partition(".")[0])
    if part is None:
        return None
    return (
        f"this command {_PURPOSE[part]}, and that part is not installed",
        f"pip install 'constitution-runbook[{part}]'  # or [operator], for every command",
    )
