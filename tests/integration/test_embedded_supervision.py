"""One supervisor owns every server: nothing outlives it, and it hides nothing.

Here with the servers that start fastest; test_embedded_services.py shows it of a stack with everything.
"""

import json
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest
import redis
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from temporalio.client import Client

from deploy.embedded.control import NotRunning, StackError
from deploy.embedded.kafka import client_configuration
from deploy.embedded.stack import Stack
from deploy.embedded.stack_directory import CHECKOUT
from tests.helpers import eventually_sync
from tests.integration.supervised import GONE, alive, family, nothing_left, supervisor


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """A stack of this test's own, with the one server that starts fastest."""
    stack = Stack(tmp_path / "var", ("valkey",), environment={})
    yield stack
    stack.erase()


@pytest.fixture(autouse=True)
def _nothing_outside(tmp_path: Path) -> Iterator[None]:
    """A root stack keeps PostgreSQL's data outside of closed directories, which pytest's are."""
    yield
    for name in ("var", "one", "two", "other"):
        Stack(tmp_path / name, environment={}).erase()


def command_line(*arguments: str, directory: Path) -> list[str]:
    return [sys.executable, "-m", "deploy.embedded", *arguments, "--directory", str(directory)]


def run(*arguments: str, directory: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # noqa: S603
        command_line(*arguments, directory=directory), cwd=CHECKOUT, capture_output=True, text=True, check=False
    )


class TestDeathOfTheSupervisor:
    @pytest.mark.slow
    def test_sigkill_also_ends_a_server_that_does_not_react(self, stack: Stack) -> None:
        stack.start()
        processes = family(stack)
        stack.kill("valkey", signal.SIGSTOP)
        supervisor(stack).kill()
        eventually_sync(lambda: alive(processes) == [], GONE)

    def test_the_next_start_takes_over_ports_and_data(self, stack: Stack) -> None:
        stack.start()
        before = stack.settings()
        redis.Redis.from_url(before["REDIS_URL"]).set("kept", "yes")
        processes = family(stack)
        supervisor(stack).kill()
        assert processes[0].wait(10) is not None or not processes[0].is_running()
        successor = Stack(stack.directory, ("valkey",), environment={})
        successor.start()
        try:
            assert successor.settings() == before
            assert redis.Redis.from_url(before["REDIS_URL"]).get("kept") == b"yes"
            eventually_sync(lambda: alive(processes) == [], GONE)
            assert [status.state for status in successor.status()] == ["running"]
        finally:
            successor.stop()

    @pytest.mark.slow
    def test_the_servers_end_with_the_program_that_started_them(self, tmp_path: Path) -> None:
        directory = tmp_path / "var"
        program = (
            "import os, signal, sys; from pathlib import Path; from deploy.embedded.stack import Stack;"
            "Stack(Path(sys.argv[1]), ('valkey', 'postgres'), environment={}).start();"
            "os.kill(os.getpid(), signal.SIGKILL)"
        )
        done = subprocess.run([sys.executable, "-c", program, str(directory)], cwd=CHECKOUT, check=False)  # noqa: S603
        assert done.returncode == -signal.SIGKILL
        eventually_sync(lambda: nothing_left(directory), GONE)
        with pytest.raises(NotRunning):
            Stack(directory).status()


class TestInterruptedStart:
    @pytest.mark.slow
    def test_ctrl_c_during_the_start_leaves_nothing(self, tmp_path: Path) -> None:
        directory = tmp_path / "var"
        starting = subprocess.Popen(  # noqa: S603
            command_line("up", "--infrastructure", directory=directory),
            cwd=CHECKOUT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert starting.stdout is not None
        for line in starting.stdout:
            if "kafka" in line and "starting" in line:
                break
        assert not nothing_left(directory)
        starting.send_signal(signal.SIGINT)
        _, errors = starting.communicate(timeout=60)
        assert (starting.returncode, "interrupted" in errors) == (130, True)
        assert nothing_left(directory)

    def test_a_server_that_cannot_start_is_named_and_the_others_are_stopped(self, tmp_path: Path) -> None:
        directory = tmp_path / "var"
        directory.mkdir()
        (directory / "valkey").write_text("a file where the data directory belongs")
        stack = Stack(directory, ("valkey", "postgres"), environment={})
        with pytest.raises(StackError, match=r"valkey: .*File exists"):
            stack.start()
        assert nothing_left(directory)
        with pytest.raises(NotRunning):
            stack.status()


class TestCrashOfOneServer:
    @pytest.mark.slow
    def test_status_names_it_and_nothing_restarts_it(self, stack: Stack) -> None:
        stack.start("valkey", "postgres")
        stack.kill("valkey")
        eventually_sync(lambda: {status.name: status.state for status in stack.status()}["valkey"] == "dead")
        shown = run("status", directory=stack.directory)
        assert shown.returncode == 1
        assert {entry["name"]: entry["state"] for entry in json.loads(shown.stdout)} == {
            "postgres": "running",
            "valkey": "dead",
        }
        assert "valkey is dead: was ended by SIGKILL; make restart NAME=valkey" in shown.stderr
        with pytest.raises(StackError, match="valkey is dead"):
            stack.start("valkey")

    @pytest.mark.slow
    def test_restart_keeps_port_password_and_data(self, stack: Stack) -> None:
        stack.start()
        before = stack.settings()
        redis.Redis.from_url(before["REDIS_URL"]).set("kept", "yes")
        stack.kill("valkey")
        eventually_sync(lambda: [status.state for status in stack.status()] == ["dead"])
        assert run("restart", "valkey", directory=stack.directory).returncode == 0
        assert stack.settings() == before
        assert redis.Redis.from_url(before["REDIS_URL"]).get("kept") == b"yes"
        assert run("status", directory=stack.directory).returncode == 0

    @pytest.mark.slow
    async def test_every_durable_server_keeps_port_and_data(self, tmp_path: Path) -> None:
        with Stack(tmp_path / "var", ("postgres", "kafka", "temporal"), environment={}) as stack:
            before = stack.settings()
            admin = AdminClient(client_configuration(before))
            admin.create_topics([NewTopic("kept", 1, 1)])["kept"].result(timeout=20)
            owner = await asyncpg.connect(before["DATABASE_MIGRATION_URL"])
            await owner.execute("CREATE TABLE kept AS SELECT 42 AS answer")
            await owner.close()
            client = await Client.connect(before["TEMPORAL_ADDRESS"])
            started = await client.start_workflow("Nobody", id="kept", task_queue="nobody")
            for name in stack.servers:
                stack.restart(name)
            assert stack.settings() == before
            assert "kept" in AdminClient(client_configuration(before)).list_topics(timeout=20).topics
            reader = await asyncpg.connect(before["DATABASE_READER_URL"])
            assert await reader.fetchval("SELECT answer FROM kept") == 42
            await reader.close()
            again = await Client.connect(before["TEMPORAL_ADDRESS"])
            assert (await again.get_workflow_handle("kept").describe()).run_id == started.result_run_id

    @pytest.mark.slow
    def test_a_server_that_runs_but_does_not_answer_is_ill(self, stack: Stack) -> None:
        stack.start()
        stack.kill("valkey", signal.SIGSTOP)
        shown = run("status", directory=stack.directory)
        stack.kill("valkey", signal.SIGCONT)
        assert shown.returncode == 1
        assert "valkey is silent" in shown.stderr


class TestStarting:
    def test_a_second_start_changes_nothing(self, stack: Stack) -> None:
        stack.start()
        pids = [process.pid for process in family(stack)]
        stack.start()
        Stack(stack.directory, ("valkey",), environment={}).start()
        assert [process.pid for process in family(stack)] == pids

    def test_down_from_another_process_returns_when_nothing_is_left(self, stack: Stack) -> None:
        stack.start("valkey", "postgres")
        processes = family(stack)
        assert run("down", directory=stack.directory).returncode == 0
        assert alive(processes) == []
        assert nothing_left(stack.directory)

    @pytest.mark.slow
    def test_a_start_during_a_stop_waits_for_it(self, stack: Stack) -> None:
        stack.start("valkey", "postgres")
        before = stack.settings()
        stopping = threading.Thread(target=Stack(stack.directory, environment={}).stop)
        stopping.start()
        successor = Stack(stack.directory, ("valkey", "postgres"), environment={})
        try:
            eventually_sync(lambda: not successor.answers() or None)
            successor.start()
            assert {status.state for status in successor.status()} == {"running"}
            assert successor.settings() == before
        finally:
            stopping.join()
            successor.stop()

    @pytest.mark.slow
    def test_two_stacks_start_side_by_side(self, tmp_path: Path) -> None:
        stacks = [Stack(tmp_path / name, ("valkey", "postgres"), environment={}) for name in ("one", "two")]
        threads = [threading.Thread(target=stack.start) for stack in stacks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        try:
            first, second = (stack.settings() for stack in stacks)
            assert set(first.values()).isdisjoint(second.values())
            redis.Redis.from_url(first["REDIS_URL"]).set("whose", "one")
            assert redis.Redis.from_url(second["REDIS_URL"]).get("whose") is None
        finally:
            for stack in stacks:
                stack.stop()
        assert all(nothing_left(stack.directory) for stack in stacks)

    def test_a_directory_with_a_long_path_works(self, tmp_path: Path) -> None:
        directory = tmp_path / ("long" * 50) / "var"
        with Stack(directory, ("valkey",), environment={}) as stack:
            assert [status.state for status in stack.status()] == ["running"]

    def test_a_server_of_the_user_is_used_instead(self, stack: Stack, tmp_path: Path) -> None:
        stack.start()
        given = {"REDIS_URL": stack.settings()["REDIS_URL"]}
        with Stack(tmp_path / "other", ("valkey",), environment=given) as other:
            assert [(status.name, status.state) for status in other.status()] == [("valkey", "external")]
            assert other.settings() == given

    def test_settings_of_its_own_in_the_environment_are_no_other_server(self, stack: Stack) -> None:
        stack.start()
        own = stack.settings()
        stack.stop()
        with Stack(stack.directory, ("valkey",), environment=own) as again:
            assert [status.state for status in again.status()] == ["running"]


class TestSecrets:
    @pytest.mark.slow
    def test_files_with_passwords_are_private(self, stack: Stack) -> None:
        stack.start("valkey", "postgres", "slack-emulator")
        known = json.loads((stack.directory / "run" / "state.json").read_text())["secrets"].values()
        holding = [
            file
            for file in stack.directory.rglob("*")
            if file.is_file() and any(secret.encode() in file.read_bytes() for secret in known)
        ]
        assert {"stack.env", "state.json", "valkey.conf", "slack-emulator.json"} <= {file.name for file in holding}
        assert [file for file in holding if file.stat().st_mode & 0o077] == []

    def test_the_control_channel_is_the_owners_alone(self, stack: Stack) -> None:
        stack.start()
        run_directory = stack.directory / "run"
        assert [oct(path.stat().st_mode & 0o777) for path in (run_directory, run_directory / "control.sock")] == [
            "0o700",
            "0o600",
        ]

    @pytest.mark.slow
    def test_nothing_of_the_callers_environment_reaches_a_server(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        secret = secrets.token_hex(16)
        monkeypatch.setenv("SOMEBODYS_TOKEN", secret)
        with Stack(tmp_path / "var", ("valkey", "postgres"), environment={}) as stack:
            assert secret.encode() in Path(f"/proc/{supervisor(stack).pid}/environ").read_bytes()
            servers = [psutil.Process(status.pid) for status in stack.status() if status.pid is not None]
            assert len(servers) == 2
            for process in servers:
                assert secret.encode() not in Path(f"/proc/{process.pid}/environ").read_bytes()
