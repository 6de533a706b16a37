"""Servers that the user already runs: given by their settings, they are used instead of ours."""

from collections.abc import Mapping

# Server -> its settings; the first one decides whether the user brings it, all that are given are passed on.
REPLACED_BY = {
    "temporal": ("TEMPORAL_ADDRESS", "TEMPORAL_NAMESPACE", "TEMPORAL_API_KEY", "TEMPORAL_TLS", "TEMPORAL_UI_URL"),
    "postgres": ("DATABASE_URL", "DATABASE_READER_URL", "DATABASE_MIGRATION_URL"),
    "valkey": ("REDIS_URL",),
    "kafka": ("KAFKA_BOOTSTRAP_SERVERS", "KAFKA_USERNAME", "KAFKA_PASSWORD", "KAFKA_SECURITY_PROTOCOL"),
    "prometheus": ("PROMETHEUS_URL",),
    "artifact-store": (
        "ARTIFACT_STORE_URL",
        "AWS_ENDPOINT_URL",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_REGION",
        "AWS_ALLOW_HTTP",
    ),
    "slack-emulator": ("SLACK_BOT_TOKEN", "SLACK_READER_TOKEN", "SLACK_API_URL"),
}

OF_OUR_PROCESSES = ("NAMESPACE", "LOG_LEVEL")


def common_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Which settings of all our own processes the user gives; blank means unset."""
    return {name: environment[name] for name in OF_OUR_PROCESSES if environment.get(name)}


def external_settings(environment: Mapping[str, str], ours: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Which servers the user brings: server name -> its settings as given.

    Args:
        environment: The caller's environment; blank means unset.
        ours: The settings in stack.env. A shell that has read that file brings our own server, not another.
    """
    found = {}
    for server, names in REPLACED_BY.items():
        given = {name: environment[name] for name in names if environment.get(name)}
        if names[0] in given and given[names[0]] != ours.get(names[0]):
            found[server] = given
    return found
