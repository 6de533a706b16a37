"""A setting that nobody reads ends each process at its start, and is named with what was meant."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from adapters.setting_names import NAMES, PREFIXES, unread
from adapters.settings import AssessorSettings, WorkerSettings
from services.constitution_service.migrate import MigrationSettings
from services.constitution_service.settings import ServiceSettings
from services.orchestrator.settings import OrchestratorSettings
from services.policy_engine.settings import PolicyEngineSettings
from services.siem_forwarder.settings import ForwarderSettings

CHECKOUT = Path(__file__).resolve().parents[2]
SETTINGS: tuple[type[BaseSettings], ...] = (
    WorkerSettings,
    AssessorSettings,
    ServiceSettings,
    PolicyEngineSettings,
    OrchestratorSettings,
    ForwarderSettings,
    MigrationSettings,
)
OF_TOOLS = {
    "CONSTITUTION_DRAFT",
    "CONSTITUTION_ENV_FILE",
    "CONSTITUTION_GATE",
    "CONSTITUTION_KEY_FILE",
    "CONSTITUTION_KEY_PASSPHRASE",
    "CONSTITUTION_PREVIOUS",
    "CONSTITUTION_STACK",
    "DATABASE_ADMIN_URL",
    "KAFKA_PROXIED_PORT",
    "KAFKA_PROXIED_UPSTREAM",
    "PROMETHEUS_TARGETS",
    "SIEM_FORWARDER_URL",
    "SLACK_ADMIN_TOKEN",
    "SLACK_READER_TOKEN",
}


def test_the_names_are_those_that_the_processes_read() -> None:
    read = {name.upper() for kind in SETTINGS for name in kind.model_fields}
    assert {name for name in read if name.startswith(PREFIXES)} == NAMES - OF_TOOLS


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("KAFKA_SASL_MECHANISMS", "KAFKA_SASL_MECHANISM"),
        ("CONSTITUTION_SERVICE_URI", "CONSTITUTION_SERVICE_URL"),
        ("PROMETHEUS_BEARER_TOKEN_FILE", "PROMETHEUS_TOKEN_FILE"),
        ("SLACK_TOKEN", "SLACK_"),
        ("KAFKA_BOOTSTRAP_SERVER", "KAFKA_BOOTSTRAP_SERVERS"),
        ("kafka_user_name", "KAFKA_USERNAME"),
        ("SIEM_HTTP_URI", "SIEM_HTTP_URL"),
        ("SIEM_SYSLOG_ADRESS", "SIEM_SYSLOG_ADDRESS"),
        ("REDIS_PASSWORD", "REDIS_"),
        ("RECORDING_HOUR", "RECORDING_HOURS"),
        ("RECONCILE_SECOND", "RECONCILE_SECONDS"),
        ("DATABASE_URI", "DATABASE_URL"),
        ("ARTIFACT_STORE_URI", "ARTIFACT_STORE_URL"),
    ],
)
def test_a_misspelt_name_is_told_with_the_nearest(name: str, nearest: str) -> None:
    (issue,) = unread({name: "a secret"})
    assert issue.path == name
    assert nearest in issue.message


@pytest.mark.parametrize(
    "name",
    [
        *sorted(NAMES),
        "CONSTITUTION_SERVICE_SERVICE_HOST",
        "CONSTITUTION_SERVICE_PORT_8080_TCP_ADDR",
        "KAFKA_SERVICE_HOST",
        "KAFKA_SERVICE_PORT_TCP_CLIENT",
        "REDIS_PORT",
        "REDIS_PORT_6379_TCP_ADDR",
        "KAFKA_HEAP_OPTS",
        "KAFKA_HOME",
        "PATH",
        "MY_KAFKA_THING",
    ],
)
def test_a_name_of_ours_or_of_others_is_let_be(name: str) -> None:
    assert unread({name: ""}) == ()


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "services.constitution_service"],
        ["-m", "services.constitution_service.migrate"],
        ["-m", "services.policy_engine"],
        ["-m", "services.orchestrator"],
        ["-m", "services.siem_forwarder"],
        ["worker.py"],
        ["assessor.py"],
    ],
    ids=lambda command: command[-1],
)
def test_each_process_refuses_to_start(command: list[str]) -> None:
    done = subprocess.run(  # noqa: S603 - our own processes
        [sys.executable, *command],
        env={"PATH": os.environ["PATH"], "KAFKA_SASL_MECHANISMS": "SCRAM-SHA-512"},
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert "KAFKA_SASL_MECHANISMS: no process of ours reads it; the nearest name is KAFKA_SASL_MECHANISM" in done.stderr
    assert "SCRAM" not in done.stderr
    assert "Traceback" not in done.stderr
