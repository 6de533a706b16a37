"""Finds settings that nobody reads: a misspelt name, or one of a feature that this product does not have.

Ignored, ``KAFKA_SASL_MECHANISMS=SCRAM-SHA-512`` would be taken for obeyed until the first release fails. So under the
prefixes that are ours each name must be one that some process reads (a file of settings is often shared by all).
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches

from constitution.errors import Issue

PREFIXES = (
    "ARTIFACT_STORE_",
    "CONSTITUTION_",
    "DATABASE_",
    "KAFKA_",
    "PROMETHEUS_",
    "RECONCILE_",
    "RECORDING_",
    "REDIS_",
    "SIEM_",
    "SLACK_",
)
NAMES = frozenset(
    {
        "ARTIFACT_STORE_URL",
        "CONSTITUTION_DRAFT",  # of the regression gate, for its suites, as the two that end in GATE and PREVIOUS
        "CONSTITUTION_ENV_FILE",  # of the command line, as the two of KEY
        "CONSTITUTION_GATE",
        "CONSTITUTION_KEY_FILE",
        "CONSTITUTION_KEY_PASSPHRASE",
        "CONSTITUTION_PREVIOUS",
        "CONSTITUTION_SERVICE_URL",
        "CONSTITUTION_STACK",  # the mark of the embedded servers in each process that they start
        "DATABASE_ADMIN_URL",  # of the embedded server, for its own tools
        "DATABASE_MIGRATION_URL",
        "DATABASE_PASSWORD_FILE",
        "DATABASE_READER_URL",
        "DATABASE_URL",
        "KAFKA_BOOTSTRAP_SERVERS",
        "KAFKA_CERTIFICATE_FILE",
        "KAFKA_CERTIFICATE_KEY_FILE",
        "KAFKA_PASSWORD",
        "KAFKA_PROXIED_PORT",  # of the embedded server's fault tests, as the next
        "KAFKA_PROXIED_UPSTREAM",
        "KAFKA_SASL_MECHANISM",
        "KAFKA_SECURITY_PROTOCOL",
        "KAFKA_TOKEN_EXTENSIONS",
        "KAFKA_TOKEN_SCOPE",
        "KAFKA_TOKEN_URL",
        "KAFKA_USERNAME",
        "PROMETHEUS_CERTIFICATE_FILE",
        "PROMETHEUS_CERTIFICATE_KEY_FILE",
        "PROMETHEUS_TARGETS",  # of the embedded server: where its targets are announced
        "PROMETHEUS_TOKEN_FILE",
        "PROMETHEUS_URL",
        "RECONCILE_CLOSED_SECONDS",
        "RECONCILE_SECONDS",
        "RECORDING_DIRECTORY",
        "RECORDING_HOURS",
        "RECORDING_MEGABYTES",
        "RECORDING_REQUESTS",
        "REDIS_URL",
        "SIEM_FILE",
        "SIEM_FORWARDER_URL",  # of the embedded stack, for people: where its forwarder answers
        "SIEM_HTTP_TOKEN",
        "SIEM_HTTP_URL",
        "SIEM_SINK",
        "SIEM_SYSLOG_ADDRESS",
        "SLACK_ADMIN_TOKEN",  # of the embedded emulator, as the next but one
        "SLACK_API_URL",
        "SLACK_BOT_TOKEN",
        "SLACK_READER_TOKEN",
    }
)
# Kubernetes and Docker set these for each service of the name (`kafka`, `redis`); Kafka's own scripts read the last.
_OF_OTHERS = re.compile(r"[A-Z_]+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP)(_\w+)?)?|HOME|\w*OPTS)")


def unread(variables: Iterable[str]) -> tuple[Issue, ...]:
    """Return an issue for each variable under one of our prefixes that no process reads; no value is looked at."""
    issues = []
    for name in sorted(variables):
        upper = name.upper()  # as pydantic reads them
        if not upper.startswith(PREFIXES) or upper in NAMES or _OF_OTHERS.fullmatch(upper):
            continue
        prefix = next(prefix for prefix in PREFIXES if upper.startswith(prefix))
        nearest = get_close_matches(upper, [known for known in sorted(NAMES) if known.startswith(prefix)], cutoff=0)[0]
        message = f"no process of ours reads it; the nearest name is {nearest}"
        issues.append(Issue(code="unknown-setting", path=name, message=message, hint=f"unset {name}"))
    return tuple(issues)
