"""What `make up` hands on of its own environment."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deploy.embedded.control import StackError
from deploy.embedded.stack import Stack
from tests.machine import patience


def test_namespace_and_log_level_reach_the_settings_of_our_processes(tmp_path: Path) -> None:
    given = {"NAMESPACE": "shared", "LOG_LEVEL": "WARNING", "PORT": "1", "KAFKA_USERNAME": "nobody"}
    with Stack(tmp_path / "stack", ["valkey"], environment=given) as stack:
        settings = stack.settings()
    assert (settings["NAMESPACE"], settings["LOG_LEVEL"]) == ("shared", "WARNING")
    assert not {"PORT", "KAFKA_USERNAME"} & set(settings)


@pytest.fixture
def theirs(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A server that is the user's own."""
    with Stack(tmp_path / "theirs", ["valkey"], environment={}) as stack:
        yield {"REDIS_URL": stack.settings()["REDIS_URL"]}


def states(stack: Stack) -> list[tuple[str, str]]:
    return [(status.name, status.state) for status in stack.status()]


class TestAServerOfTheUser:
    def test_is_used_again_whatever_the_next_shell_gives(self, tmp_path: Path, theirs: dict[str, str]) -> None:
        for environment in (theirs, theirs, {}):
            with Stack(tmp_path / "stack", ["valkey"], environment=environment) as stack:
                assert states(stack) == [("valkey", "external")]
                assert stack.status()[0].detail == "your own server, by REDIS_URL; not looked at"
                assert stack.settings() == theirs

    def test_is_used_again_after_a_start_that_failed(self, tmp_path: Path, theirs: dict[str, str]) -> None:
        (tmp_path / "stack").mkdir()
        (tmp_path / "stack" / "slack-emulator").write_text("a file where the data directory belongs")
        for _ in range(2):
            with pytest.raises(StackError, match="slack-emulator"):
                Stack(tmp_path / "stack", ["valkey", "slack-emulator"], environment=theirs).start()
        with Stack(tmp_path / "stack", ["valkey"], environment=theirs) as stack:
            assert states(stack) == [("valkey", "external")]

    def test_does_not_take_the_place_of_one_that_runs(self, tmp_path: Path, theirs: dict[str, str]) -> None:
        with Stack(tmp_path / "stack", ["valkey"], environment={}) as stack:
            before = stack.settings()
            with pytest.raises(StackError, match=r"REDIS_URL names your own valkey, .*; make down"):
                Stack(stack.directory, ["valkey"], environment=theirs).start()
            assert (states(stack), stack.settings()) == ([("valkey", "running")], before)

    @pytest.mark.slow
    def test_is_not_exchanged_while_others_run_with_it(self, tmp_path: Path, theirs: dict[str, str]) -> None:
        with Stack(tmp_path / "stack", ["valkey", "temporal"], environment=theirs) as stack:
            another = {"REDIS_URL": "redis://127.0.0.1:1/0"}
            with pytest.raises(StackError, match="another valkey than REDIS_URL names now; make down"):
                Stack(stack.directory, ["valkey"], environment=another).start()

    @pytest.mark.slow
    def test_is_left_for_the_stacks_own_when_that_is_asked_for(self, tmp_path: Path, theirs: dict[str, str]) -> None:
        stack = Stack(tmp_path / "stack", ["valkey"], environment=theirs)
        with stack, pytest.raises(StackError, match="runs with your own valkey; make down"):
            stack.forget("valkey")
        stack.forget("valkey")
        with Stack(tmp_path / "stack", ["valkey"], environment={}) as stack:
            assert states(stack) == [("valkey", "running")]


def test_a_database_that_nobody_migrated_is_refused_at_once_with_the_command(
    *,
    tmp_path: Path,
    postgres_settings: dict[str, str],
    valkey_settings: dict[str, str],
    kafka: dict[str, str],
) -> None:
    servers = {"REDIS_URL": valkey_settings["REDIS_URL"], **kafka}  # nothing but the service itself has to start
    mine = servers | {"DATABASE_URL": postgres_settings["DATABASE_ADMIN_URL"]}
    began = datetime.now(UTC)
    with pytest.raises(StackError, match=r"no schema of ours: run DATABASE_MIGRATION_URL="):
        Stack(tmp_path / "stack", ["constitution-service"], environment=mine).start()
    assert datetime.now(UTC) - began < patience(timedelta(seconds=60))  # a service that is not ready waits for 90 s
