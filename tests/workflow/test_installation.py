"""`constitution doctor --deployment`: all is well in a whole environment; what is broken is named with its command."""

import asyncio
import json
import secrets
import shlex
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined] # it exports them, but by no __all__
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from constitution_client.temporal import Runs
from deploy.embedded.kafka import client_configuration
from tests.conftest import MIGRATIONS
from tests.helpers import eventually
from tests.ports import free_port
from tests.world import database
from tests.world.environment import SOON, Environments, RunningEnvironment
from tests.world.files import EnvironmentFiles
from tests.world.processes import kept_variables, run_constitution, run_program

pytestmark = pytest.mark.timeout(240)

Report = tuple[int, list[dict[str, Any]]]


@pytest.fixture(scope="module")
async def installed(environments: Environments, servers: dict[str, str]) -> AsyncIterator[RunningEnvironment]:
    """An environment as it is installed: reconciled, and scraped by Prometheus. Something is live."""
    made = environments.with_settings(RECONCILE_SECONDS="30", PROMETHEUS_TARGETS=servers["PROMETHEUS_TARGETS"])
    env = await made.running()
    await env.live()
    yield env
    await made.leave()


async def looked_at(env: RunningEnvironment, **changes: str) -> Report:
    """Run the doctor with every setting of the environment and these; (exit code, checks)."""
    keys = {
        "STATEMENT_KEY_FILE": str(env.files.key_file("constitution-service")),
        "ASSESSOR_KEY_FILE": str(env.files.key_file("assessor")),
        "CONSTITUTION_ENV_FILE": str(env.directory / "stack.env"),
    }
    code, out, err = await asyncio.to_thread(
        run_constitution, {**kept_variables(), **keys, **changes}, "doctor", "--deployment"
    )
    assert out, err
    return code, json.loads(out)["checks"]


def broken(report: Report) -> dict[tuple[str, str], dict[str, Any]]:
    """What is not well, by place and subject; each has a command."""
    found = {(check["place"], check["subject"]): check for check in report[1] if check["state"] != "ok"}
    assert all(check["command"] for check in found.values())
    return found


def named(report: Report, place: str, subject: str) -> dict[str, Any]:
    """The one thing that is missing."""
    assert report[0] == 1
    found = broken(report)[place, subject]
    assert found["state"] == "missing"
    return found


async def test_all_is_well_in_a_whole_environment(installed: RunningEnvironment) -> None:
    async def well() -> bool:  # Prometheus scrapes a second after an engine has come
        code, checks = await looked_at(installed)
        assert broken((code, checks)) == {}
        assert code == 0
        return True

    await eventually(well, SOON)
    _, checks = await looked_at(installed)
    places = {check["place"] for check in checks}
    names = installed.names
    assert places >= {
        "ENVIRONMENT_FILE", "TEMPORAL_ADDRESS", "DATABASE_URL", "DATABASE_READER_URL", "KAFKA_BOOTSTRAP_SERVERS",
        "REDIS_URL", "ARTIFACT_STORE_URL", "PROMETHEUS_URL", "CONSTITUTION_SERVICE_URL", "CLIENT_KEY_FILE",
        f"topic {names.topic_updated()}", f"topic {names.topic_audit()}",
        f"task queue {names.task_queue()}", f"task queue {names.assessor_queue()}",
        *(f"target {target.id}" for target in installed.config.targets),
    }  # fmt: skip
    assert not [check for check in checks if "password" in json.dumps(check).lower()]


async def test_what_no_setting_names_is_not_claimed(installed: RunningEnvironment) -> None:
    code, checks = await looked_at(installed, STATEMENT_KEY_FILE="", REDIS_URL="")
    assert code == 3
    assert {place: check["state"] for (place, _), check in broken((code, checks)).items()} == {
        "STATEMENT_KEY_FILE": "cannot tell",
        "REDIS_URL": "cannot tell",
    }


async def test_a_misspelt_setting_is_refused_before_anything_is_looked_at() -> None:
    code, out, err = await asyncio.to_thread(
        run_constitution,
        {**kept_variables(), "KAFKA_BOOTSTRAP_SERVER": "kafka:9092"},
        "doctor",
        "--deployment",
    )
    assert (code, out) == (2, "")
    assert "the nearest name is KAFKA_BOOTSTRAP_SERVERS" in err


@pytest.mark.slow
async def test_a_topic_that_forgets_is_named(installed: RunningEnvironment) -> None:
    topic = installed.names.topic_updated()
    await asyncio.to_thread(configure, installed.settings, topic, "retention.ms", "604800000")
    try:
        found = named(await looked_at(installed), f"topic {topic}", "settings")
        assert "retention.ms is 604800000 and must be -1" in found["detail"]
        assert found["command"].startswith('kafka-configs.sh --bootstrap-server "$KAFKA_BOOTSTRAP_SERVERS" --alter')
        given = dict(pair.split("=") for pair in found["command"].split("--add-config ")[1].split(","))
        for name, value in given.items():  # what the command would set is what brings it right
            await asyncio.to_thread(configure, installed.settings, topic, name, value)
        assert (f"topic {topic}", "settings") not in broken(await looked_at(installed))
    finally:
        await asyncio.to_thread(configure, installed.settings, topic, "retention.ms", "-1")


def configure(settings: Mapping[str, str], topic: str, name: str, value: str) -> None:
    admin = AdminClient(client_configuration(dict(settings)))
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin.incremental_alter_configs([resource])[resource].result(10)


@pytest.mark.slow
async def test_another_namespace_has_no_topics_no_workers_and_no_schedule(installed: RunningEnvironment) -> None:
    report = await looked_at(installed, NAMESPACE="elsewhere")
    assert (
        "--create --topic elsewhere.constitution.updated --partitions 1 --config retention.ms=-1"
        in (named(report, "topic elsewhere.constitution.updated", "exists")["command"])
    )
    assert named(report, "task queue elsewhere-constitution-runbook", "pollers")["command"].startswith("role worker")
    assert named(report, "task queue elsewhere-constitution-assessor", "pollers")["command"].startswith("role assessor")
    assert "RECONCILE_SECONDS=30" in named(report, "TEMPORAL_ADDRESS", "schedule")["command"]


async def test_a_schema_one_migration_behind_is_named_and_its_command_helps(
    installed: RunningEnvironment, servers: dict[str, str], tmp_path: Path
) -> None:
    files = sorted(MIGRATIONS.glob("*.sql"))
    older = tmp_path / "migrations"
    older.mkdir()
    for file in files[:-1]:
        shutil.copy(file, older)
    async with database.lent(servers) as addresses:
        await migrate(addresses["DATABASE_MIGRATION_URL"], str(older))
        given = {name: addresses[name] for name in ("DATABASE_URL", "DATABASE_READER_URL")}
        found = named(await looked_at(installed, **given), "DATABASE_URL", "schema")
        assert files[-1].name.partition("_")[0] in found["detail"]
        assert found["command"].endswith("python -m services.constitution_service.migrate")
        await migrate(addresses["DATABASE_MIGRATION_URL"], str(MIGRATIONS))
        assert {place for place, _ in broken(await looked_at(installed, **given))} == set()


async def migrate(url: str, folder: str) -> None:
    settings = {"DATABASE_MIGRATION_URL": url, "MIGRATIONS_DIRECTORY": folder}
    code, _, err = await run_program(settings, sys.executable, "-m", "services.constitution_service.migrate")
    assert code == 0, err


@pytest.mark.slow
async def test_a_reader_that_may_write_is_named(installed: RunningEnvironment) -> None:
    report = await looked_at(installed, DATABASE_READER_URL=installed.settings["DATABASE_URL"])
    found = named(report, "DATABASE_READER_URL", "rights")
    assert "the worker may only read" in found["detail"]
    assert "deploy/sql/roles.sql" in found["command"]


@pytest.mark.slow
async def test_missing_search_attributes_are_named_and_the_command_registers_them(
    installed: RunningEnvironment,
) -> None:
    namespace = f"fresh-{secrets.token_hex(4)}"
    code, _, err = await installed.temporal("operator", "namespace", "create", "--namespace", namespace)
    assert code == 0, err
    reports: list[Report] = []

    async def there() -> bool:  # the frontend's cache of namespaces is some seconds old
        reports[:] = [await looked_at(installed, TEMPORAL_NAMESPACE=namespace)]
        return ("TEMPORAL_ADDRESS", "search attributes") in broken(reports[0])

    await eventually(there, SOON)
    found = named(reports[0], "TEMPORAL_ADDRESS", "search attributes")
    assert "ConstitutionPhase" in found["detail"]
    program, *arguments = shlex.split(found["command"])
    assert program == "temporal"
    code, _, err = await installed.temporal(*arguments)
    assert code == 0, err

    async def registered() -> bool:
        return ("TEMPORAL_ADDRESS", "search attributes") not in broken(
            await looked_at(installed, TEMPORAL_NAMESPACE=namespace)
        )

    await eventually(registered, SOON)


@pytest.mark.slow
async def test_keys_of_another_ceremony_are_named(installed: RunningEnvironment, tmp_path: Path) -> None:
    other = EnvironmentFiles.make(tmp_path / "other")
    given = {
        "CLIENT_KEY_FILE": other.key_file("operator"),
        "STATEMENT_KEY_FILE": other.key_file("constitution-service"),
    }

    async def named_alone() -> bool:  # Prometheus scrapes a second after an engine has come
        report = await looked_at(installed, **{name: str(file) for name, file in given.items()})
        for name in given:
            found = named(report, name, "key")
            assert "under another public key" in found["detail"]
            assert found["command"].startswith(f"give {name} ")
        assert set(broken(report)) == {(name, "key") for name in given}
        return True

    await eventually(named_alone, SOON)


@pytest.mark.slow
async def test_a_server_that_is_not_there_is_named(installed: RunningEnvironment) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    report = await looked_at(
        installed,
        REDIS_URL=f"redis://{nowhere}",
        PROMETHEUS_URL=f"http://{nowhere}",
        TEMPORAL_ADDRESS=nowhere,
        DATABASE_URL=f"postgresql://somebody:secret-word@{nowhere}/constitution",
        KAFKA_BOOTSTRAP_SERVERS=nowhere,
        CONSTITUTION_SERVICE_URL=f"http://{nowhere}",
    )
    for place in (
        "REDIS_URL", "PROMETHEUS_URL", "TEMPORAL_ADDRESS", "DATABASE_URL", "KAFKA_BOOTSTRAP_SERVERS",
        "CONSTITUTION_SERVICE_URL",
    ):  # fmt: skip
        named(report, place, "answers")
    assert "secret-word" not in json.dumps(report)


@pytest.mark.slow
async def test_a_queue_that_no_assessor_polls_is_named(installed: RunningEnvironment) -> None:
    queue = installed.names.assessor_queue()
    await asyncio.to_thread(installed.stack.kill, "assessor", signal.SIGTERM)
    runs = Runs(installed.client, queue)

    async def unpolled() -> bool:
        return await runs.workers() == []

    await eventually(unpolled, timedelta(seconds=150))  # a poll is shown for 90 s
    found = named(await looked_at(installed), f"task queue {queue}", "pollers")
    assert found["command"].startswith("role assessor")
    await installed.restart("assessor")
