"""Temporal behind TLS by a company's authority, a client's certificate and an API key, as its cloud demands each."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.client import Client

from constitution.names import Names
from constitution_client.exit_codes import ExitCode
from tests.helpers import eventually
from tests.world.authority import Authority
from tests.world.files import CHECKOUT, EnvironmentFiles
from tests.world.nginx import GrpcDoor
from tests.world.processes import Process, run_constitution

START = timedelta(seconds=40)
KEY = "the-api-key"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
async def secured(
    temporal_settings: dict[str, str], authority: Authority, tmp_path: Path
) -> AsyncIterator[dict[str, str]]:
    """What a process of ours is told: the address, and all that the door demands."""
    door = GrpcDoor(temporal_settings["TEMPORAL_ADDRESS"], authority=authority, key=KEY, folder=tmp_path)
    client = authority.issue("client")
    async with door.running() as address:
        yield {
            "TEMPORAL_ADDRESS": address,
            "TEMPORAL_NAMESPACE": temporal_settings["TEMPORAL_NAMESPACE"],
            "TEMPORAL_API_KEY": KEY,
            "TEMPORAL_TLS_SERVER_CA_CERT_PATH": str(authority.file),
            "TEMPORAL_TLS_CLIENT_CERT_PATH": str(client.certificate),
            "TEMPORAL_TLS_CLIENT_KEY_PATH": str(client.key),
        }


def without(settings: Mapping[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in settings.items() if name not in names}


async def test_a_worker_carries_out_a_workflow_through_tls_with_certificate_and_key(
    *,
    secured: dict[str, str],
    worker_settings: dict[str, str],
    temporal_client: Client,
    namespace: str,
    tmp_path: Path,
) -> None:
    worker = Process([str(CHECKOUT / "worker.py")], worker_settings | secured, tmp_path / "worker.log").start()
    try:

        def polls() -> bool:
            assert worker.process is not None
            assert worker.process.poll() is None, worker.output()
            return "worker: polling" in worker.output()

        await eventually(polls, START)
        handle = await temporal_client.start_workflow(
            "ConstitutionRollback", {"nonsense": 1}, id=f"{namespace}/refused", task_queue=Names(namespace).task_queue()
        )

        async def has_acted() -> bool:
            history = await handle.fetch_history()
            return any(event.HasField("activity_task_completed_event_attributes") for event in history.events)

        await eventually(has_acted, START)
        await handle.terminate()
        assert worker.stop() == 0, worker.output()
        assert KEY not in worker.output()
    finally:
        worker.kill()


@pytest.mark.parametrize(
    ("wrong", "code", "words"),
    [
        ({"TEMPORAL_API_KEY": "another"}, ExitCode.REFUSED, "TEMPORAL_API_KEY"),
        ({"TEMPORAL_TLS_CLIENT_CERT_PATH": "", "TEMPORAL_TLS_CLIENT_KEY_PATH": ""}, ExitCode.UNAVAILABLE, "400"),
        ({"TEMPORAL_TLS_SERVER_CA_CERT_PATH": ""}, ExitCode.UNAVAILABLE, "UnknownIssuer"),
    ],
    ids=["key", "certificate", "authority"],
)
async def test_who_lacks_one_of_them_is_told_which(
    wrong: dict[str, str], code: ExitCode, words: str, *, secured: dict[str, str], environment_files: EnvironmentFiles
) -> None:
    variables = without(secured, *wrong) | {name: value for name, value in wrong.items() if value}
    given = {**variables, "ENVIRONMENT_FILE": str(environment_files.environment_file)}
    ended, _, said = await asyncio.to_thread(run_constitution, given, "status")
    assert ended == code
    assert "Temporal at 127.0.0.1" in said
    assert words in said
    assert KEY not in said


async def test_the_command_line_takes_all_of_it_from_a_profile(
    secured: dict[str, str], environment_files: EnvironmentFiles, tmp_path: Path
) -> None:
    profiles = tmp_path / "temporal.toml"
    profiles.write_text(
        f"""
[profile.company]
address = "{secured["TEMPORAL_ADDRESS"]}"
namespace = "{secured["TEMPORAL_NAMESPACE"]}"
api_key = "{KEY}"
[profile.company.tls]
server_ca_cert_path = "{secured["TEMPORAL_TLS_SERVER_CA_CERT_PATH"]}"
client_cert_path = "{secured["TEMPORAL_TLS_CLIENT_CERT_PATH"]}"
client_key_path = "{secured["TEMPORAL_TLS_CLIENT_KEY_PATH"]}"
""",
        encoding="utf-8",
    )
    given = {"TEMPORAL_CONFIG_FILE": str(profiles), "TEMPORAL_PROFILE": "company"}
    environment = {"ENVIRONMENT_FILE": str(environment_files.environment_file)}
    code, _, said = await asyncio.to_thread(run_constitution, given | environment, "status")
    assert code == 0, said


async def test_the_machines_authorities_are_trusted_without_naming_one(
    secured: dict[str, str], authority: Authority, environment_files: EnvironmentFiles
) -> None:
    given = without(secured, "TEMPORAL_TLS_SERVER_CA_CERT_PATH") | {"SSL_CERT_FILE": str(authority.file)}
    environment = {"ENVIRONMENT_FILE": str(environment_files.environment_file)}
    code, _, said = await asyncio.to_thread(run_constitution, given | environment, "status")
    assert code == 0, said
