"""The command line against a real Temporal server: exit codes that hold, and failures that say what to type next."""

import asyncio
import json
import os
import shlex
import signal
import socket
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio import workflow
from temporalio.client import Client
from temporalio.worker import Worker

from constitution.names import Names
from tests.helpers import eventually
from tests.terminal import Terminal
from tests.world.processes import run_constitution

CHECKOUT = Path(__file__).resolve().parents[2]
AT_ONCE = 3  # processes side by side: the machine is shared, and the fault is not about load
CHECKSUM = "sha256:" + "0" * 64


@pytest.fixture(scope="module")
def environment_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("environment") / "environment.toml"
    path.write_text('environment = "development"\ngate = "gate"\n')
    return path


def _variables(temporal: dict[str, str], environment_file: Path, namespace: str) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("TEMPORAL_", "CONSTITUTION_"))},
        **{name: value for name, value in temporal.items() if name.startswith("TEMPORAL_")},
        "ENVIRONMENT_FILE": str(environment_file),
        "NAMESPACE": namespace,
        "PYTHONPATH": str(CHECKOUT),
    }


async def _start(
    temporal: dict[str, str], environment_file: Path, namespace: str, *arguments: str
) -> asyncio.subprocess.Process:
    variables = _variables(temporal, environment_file, namespace)
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "constitution_client",
        *arguments,
        env=variables,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def _constitution(
    temporal: dict[str, str], environment_file: Path, namespace: str, *arguments: str
) -> tuple[int, str, str]:
    variables = _variables(temporal, environment_file, namespace)
    return await asyncio.to_thread(run_constitution, variables, *arguments)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("starts", [5, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [(("status",), 0), (("abort", "constitution-update/none/CR-0", "--reason", "x"), 1)],
    ids=["success", "refusal"],
)
async def test_exit_codes_hold_over_many_starts(
    *,
    temporal_settings: dict[str, str],
    environment_file: Path,
    namespace: str,
    arguments: tuple[str, ...],
    expected: int,
    starts: int,
) -> None:
    places = asyncio.Semaphore(AT_ONCE)

    async def once() -> int:
        async with places:
            process = await _start(temporal_settings, environment_file, namespace, *arguments)
            await asyncio.wait_for(process.communicate(), 60)
            assert process.returncode is not None
            return process.returncode

    codes = await asyncio.gather(*(once() for _ in range(starts)))
    assert codes == [expected] * starts


async def test_an_update_starts_once_per_change_request(
    temporal_settings: dict[str, str], environment_file: Path, namespace: str
) -> None:
    start = ("update", "--checksum", CHECKSUM, "--change-request", "CR-1", "--text")
    code, out, err = await _constitution(temporal_settings, environment_file, namespace, *start)
    workflow_id = f"{namespace}/constitution-update/development/CR-1"
    assert code == 0, err
    assert workflow_id in out
    assert f"next: constitution watch {workflow_id}" in out

    code, out, err = await _constitution(temporal_settings, environment_file, namespace, *start)
    assert (code, out) == (1, "")
    assert "is running already" in err
    assert f"next: constitution watch {workflow_id}" in err

    code, out, _ = await _constitution(temporal_settings, environment_file, namespace, "status", "--text")
    assert code == 0
    assert workflow_id in out


@pytest.mark.slow
@pytest.mark.parametrize("chosen", ["X", "mine/of me", "constitution-update/development/own"])
async def test_what_an_update_under_an_id_of_its_own_prints_finds_it(
    temporal_settings: dict[str, str], environment_file: Path, namespace: str, chosen: str
) -> None:
    start = ("update", "--checksum", CHECKSUM, "--change-request", "CR-9", "--id", f"{namespace}{chosen}", "--text")
    code, out, err = await _constitution(temporal_settings, environment_file, namespace, *start)
    assert code == 0, err
    printed = [shlex.split(line.removeprefix("next:")) for line in out.splitlines() if "constitution " in line[6:]]
    printed = [words for words in printed if words[:1] == ["constitution"]]
    assert [words[1] for words in printed] == ["watch", "approve", "abort"]
    code, _, err = await _constitution(
        temporal_settings, environment_file, namespace, *printed[0][1:], "--timeout", "0.1"
    )
    assert code == 4, err
    code, _, err = await _constitution(temporal_settings, environment_file, namespace, "status", printed[0][2])
    assert code == 4, err
    assert "no worker" in err


@pytest.mark.slow
async def test_without_a_worker_status_says_so_and_following_ends_with_4(
    temporal_settings: dict[str, str], environment_file: Path, namespace: str
) -> None:
    start = ("update", "--checksum", CHECKSUM, "--change-request", "CR-2", "--wait", "--timeout", "1")
    code, _, err = await _constitution(temporal_settings, environment_file, namespace, *start)
    assert code == 4, err
    assert "still going on after 1 s; next: constitution watch" in err

    # On a terminal the screen stays when the watching ends: the last thing sent is no deletion of what was shown.
    watch = [sys.executable, "-m", "constitution_client", "watch", "CR-2", "--timeout", "1"]
    variables = _variables(temporal_settings, environment_file, namespace)
    async with Terminal(watch, variables) as terminal:
        assert await terminal.end() == 4
        await terminal.until("still going on")
        shown = terminal.sent.rpartition(b"\x1b[2K")[2]
        assert b"no answer yet" in shown, terminal.sent

    code, out, err = await _constitution(temporal_settings, environment_file, namespace, "status", "--text")
    assert code == 0, err
    assert "waiting for" in out
    assert "unknown" in out

    code, out, err = await _constitution(temporal_settings, environment_file, namespace, "status", "CR-2")
    assert (code, out) == (4, "")
    assert "make worker" in err


@pytest.mark.slow
async def test_ctrl_c_ends_the_watching_with_130_and_not_the_run(
    temporal_settings: dict[str, str], environment_file: Path, namespace: str
) -> None:
    start = ("update", "--checksum", CHECKSUM, "--change-request", "CR-3")
    code, _, err = await _constitution(temporal_settings, environment_file, namespace, *start)
    assert code == 0, err
    process = await _start(temporal_settings, environment_file, namespace, "watch", "CR-3")
    assert process.stderr is not None
    said = ""
    while "no answer yet" not in said:  # it has connected and asked; nobody works on the queue
        line = await asyncio.wait_for(process.stderr.readline(), 40)
        assert line, said
        said += line.decode()
    process.send_signal(signal.SIGINT)
    _, rest = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 130
    assert "the run goes on" in rest.decode()
    code, out, _ = await _constitution(temporal_settings, environment_file, namespace, "status", "--text")
    assert f"{namespace}/constitution-update/development/CR-3" in out


async def test_a_run_that_does_not_exist_is_named(
    temporal_settings: dict[str, str], environment_file: Path, namespace: str
) -> None:
    for arguments in (("status", "CR-404"), ("watch", "CR-404"), ("abort", "CR-404", "--reason", "x")):
        code, out, err = await _constitution(temporal_settings, environment_file, namespace, *arguments)
        assert (code, out) == (1, "")
        assert "CR-404" in err
        assert "next: constitution status" in err


@workflow.defn(name="ConstitutionUpdate", sandboxed=False)
class _Failing:
    """A hostile peer: an update whose every workflow task fails, as one from a defect of ours would."""

    @workflow.run
    async def run(self, request: dict[str, str]) -> None:
        raise ValueError(request)


@pytest.mark.timeout(180)
async def test_the_doctor_names_a_run_whose_workflow_task_fails(
    temporal_settings: dict[str, str], temporal_client: Client, environment_file: Path, namespace: str
) -> None:
    queue = Names(namespace).task_queue()
    start = ("update", "--checksum", CHECKSUM, "--change-request", "CR-13")
    code, _, err = await _constitution(temporal_settings, environment_file, namespace, *start)
    assert code == 0, err
    stalled = f"{namespace}/constitution-update/development/CR-13"
    async with Worker(temporal_client, task_queue=queue, workflows=[_Failing]):

        async def named() -> bool:
            code, out, err = await _constitution(
                temporal_settings, environment_file, namespace, "doctor", "--timeout", "2"
            )
            assert (code, bool(out)) == (1, True), err
            report = json.loads(out)
            assert ("run-stalls", stalled) in [(f["code"], f["where"]) for f in report["findings"]], report
            assert report["unchecked"] == ["everything that only the worker can look at"]
            return True

        await eventually(named, timedelta(seconds=90))


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that is ours and where nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


async def test_a_server_that_does_not_answer_is_3_and_names_the_setting(
    environment_file: Path, namespace: str, closed_port: int
) -> None:
    nobody = {"TEMPORAL_ADDRESS": f"127.0.0.1:{closed_port}"}
    code, out, err = await _constitution(nobody, environment_file, namespace, "status")
    assert (code, out) == (3, "")
    assert f"127.0.0.1:{closed_port}" in err
    assert "TEMPORAL_ADDRESS" in err


async def test_without_any_setting_the_variable_is_named(environment_file: Path, namespace: str) -> None:
    # Nobody may listen on Temporal's default address here, or the test would find a stranger's server.
    with socket.socket() as default:
        default.settimeout(2)
        assert default.connect_ex(("127.0.0.1", 7233)) != 0
    for arguments in (("status",), ("watch", "CR-1"), ("abort", "CR-1", "--reason", "x")):
        code, out, err = await _constitution({}, environment_file, namespace, *arguments)
        assert (code, out) == (3, "")
        assert "TEMPORAL_ADDRESS is not set" in err
        assert "next: export CONSTITUTION_ENV_FILE=var/stack.env" in err
        assert "tonic" not in err


async def test_a_configuration_that_cannot_be_read_is_named(environment_file: Path, namespace: str) -> None:
    wrong = {"TEMPORAL_CONFIG_FILE": str(environment_file.parent / "missing.toml"), "TEMPORAL_PROFILE": "nowhere"}
    code, _, err = await _constitution(wrong, environment_file, namespace, "status")
    assert code == 2
    assert "configuration" in err
