"""environment.toml, the trust policy, and the keys that the settings name."""

from collections.abc import Iterator
from pathlib import Path

from adapters.environment_config import EnvironmentConfig, load_environment_config
from constitution.errors import ConstitutionError
from constitution.trust.trust_policy import TrustPolicy
from deploy.installation.check import Check, cannot_tell, missing, not_set, ok
from deploy.installation.settings import InstallationSettings
from signatures.tokens import ClientKey

PLACE = "ENVIRONMENT_FILE"


def read_environment(settings: InstallationSettings) -> tuple[EnvironmentConfig | None, list[Check]]:
    """Read environment.toml and the trust policy; None where they cannot be used."""
    if settings.environment_file is None:
        return None, [not_set(PLACE, "every process")]
    try:
        config = load_environment_config(settings.environment_file)
    except ConstitutionError as error:
        detail = "; ".join([error.message, *(f"{issue.path}: {issue.message}" for issue in error.issues)])
        command = "make a trust policy as docs/trust-policy.md says"
        return None, [missing(PLACE, "environment and trust policy", detail, error.hint or command)]
    trust, targets = config.trust, config.environment.targets
    detail = f"{config.name}: {len(trust.people)} people, {len(targets)} targets"
    found = [ok(PLACE, "environment and trust policy", detail)]
    if not targets:
        found.append(
            missing(
                PLACE,
                "targets",
                "no target is listed: a release would be confirmed although no consumer was asked",
                f'printf \'[[targets]]\\nid = "policy-engine-0"\\nkind = "policy_engine"\\nurl = "http://…"\\n\''
                f" >>{settings.environment_file}",
            )
        )
    return config, found


def keys(settings: InstallationSettings, trust: TrustPolicy) -> Iterator[Check]:
    """Compare each key file with what the trust policy pins under its id."""
    for name, process, path, pinned in (
        ("CLIENT_KEY_FILE", "the worker or an operator", settings.client_key_file, trust.client),
        ("STATEMENT_KEY_FILE", "constitution-service", settings.statement_key_file, trust.service),
        ("ASSESSOR_KEY_FILE", "the assessor", settings.assessor_key_file, trust.assessor),
    ):
        if path is None:
            yield cannot_tell(name, "key", f"{name} is not set here", f"give {name} the value that {process} has")
            continue
        try:
            key = ClientKey.load(path)
        except ConstitutionError as error:
            yield missing(name, "key", error.message, error.hint or f"ls -l {path}")
            continue
        known = pinned(key.id)
        if known is None or known.public_key != key.public_text():
            said = "under another public key" if known is not None else "not at all"
            yield missing(
                name,
                "key",
                f"the trust policy knows {key.id!r} {said}: whatever this key signs is refused",
                f"give {name} the file of {key.id!r} that was made together with this trust policy",
            )
            continue
        yield _mode(name, path, f"the trust policy pins {key.id!r}")


def _mode(name: str, path: Path, said: str) -> Check:
    mode = path.stat().st_mode & 0o777
    if mode & 0o007:
        return missing(name, "key", f"everybody on this machine may read it (mode {mode:04o})", f"chmod o= {path}")
    return ok(name, "key", said)
