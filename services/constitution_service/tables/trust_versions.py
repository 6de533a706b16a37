"""Versions of the trust policy that were in force here, and the rule that none comes again."""

from adapters.postgres import Connection
from constitution.errors import UntrustedError
from constitution.trust.trust_policy import TrustPolicy

HINT = "constitution trust verify FOLDER  # of the newest version; then install it with constitution trust install"


async def remember(connection: Connection, policy: TrustPolicy) -> None:
    """Record that a version is in force.

    Raises:
        UntrustedError: a higher one was, in this process or another.
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
    await connection.execute(
        "INSERT INTO trust_versions (environment, version, checksum) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        policy.environment,
        policy.version,
        policy.checksum,
    )
