"""Versions of the trust policy that were in force here, and the rule that none comes again."""

from adapters.postgres import Connection
from constitution.errors import UntrustedError
from constitution.trust.trust_policy import TrustPolicy

HINT = "constitution trust verify FOLDER  # of the newest version; then install it with constitution trust install"


async def remember(connection: Connection, policy: TrustPolicy) -> bool:
    """Record that a version is in force; return whether it follows another one.

    Raises:
        UntrustedError: a higher one was, in this process or another, or this one with other bytes.
    """
    highest = await connection.fetchval(
        "SELECT max(version) FROM trust_versions WHERE environment = $1", policy.environment
    )
    if highest is not None and policy.version < highest:
        raise UntrustedError(
            f"the trust policy is version {policy.version}, but version {highest} was in force here: "
            "no version comes again",
            hint=HINT,
        )
    known = await connection.fetch(
        "SELECT checksum FROM trust_versions WHERE environment = $1 AND version = $2",
        policy.environment,
        policy.version,
    )
    if known and policy.checksum not in {row["checksum"] for row in known}:
        raise UntrustedError(
            f"the trust policy of version {policy.version} has other bytes than the one that was in force here: "
            "a change takes a new version",
            hint=HINT,
        )
    inserted = await connection.execute(
        "INSERT INTO trust_versions (environment, version, checksum) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        policy.environment,
        policy.version,
        policy.checksum,
    )
    return highest is not None and str(inserted).endswith(" 1")
